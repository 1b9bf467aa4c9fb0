//! What a session begins with: where models are, what the command line asked for, who is told.
//! Owns no state of a run.

use crate::engine::{self, Engine, Settings};
use crate::gpu::{DType, Place};
use crate::run::access::{Access, AllowedProgram};
use crate::run::checkpoint::{Continued, Schedule};
use crate::run::interrupt::Interrupt;
use crate::run::report::{Reporter, Silent};
use crate::run::samples::Kept;
use serde_json::Value;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How far the steps of a run are computed again.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    pub step: u64,
    /// The run itself came no further: what follows its loop is computed as well, as after Ctrl-C.
    pub through: bool,
}

/// What a session begins with.
#[derive(Clone)]
pub struct Launch {
    /// Where models are.
    pub place: Place,
    /// The type that a device computes in.
    pub compute: DType,
    /// What runs the models.
    pub engine: Rc<dyn Engine>,
    /// `--seed`: goes before what the script says.
    pub seed: Option<u64>,
    /// `--set` in order; a later one goes before an earlier one of the same name.
    pub sets: Vec<(String, String)>,
    /// Those of them that were said now: of a run that goes on, its folder says others, and they grant nothing.
    pub said: Vec<(String, String)>,
    /// `--out`
    pub out: Option<PathBuf>,
    pub threads: usize,
    pub interrupt: Interrupt,
    /// What its scripts may read and write.
    pub access: Access,
    /// What its scripts may start.
    pub programs: Vec<AllowedProgram>,
    /// How long such a program may take for one answer.
    pub patience: Duration,
    /// `--samples`
    pub samples: Kept,
    /// `--checkpoint`
    pub checkpoint: Schedule,
    /// `--resume`
    pub continued: Option<Continued>,
    /// How far steps are only computed again.
    pub until: Option<Until>,
    /// What a run records of the command line, so that it can be continued.
    pub command: Value,
    pub reporter: Rc<dyn Reporter>,
}

impl Launch {
    /// In this process, silent, nothing overridden.
    pub fn new(place: Place, settings: Settings) -> Self {
        Self::on(engine::local(settings), place)
    }

    /// On any engine, silent, nothing overridden.
    pub fn on(engine: Rc<dyn Engine>, place: Place) -> Self {
        let interrupt = Interrupt::new(engine.settings().stop.clone());
        let (sets, access, reporter) = (Vec::new(), Access::everything(), Rc::new(Silent));
        Self {
            place,
            compute: DType::Bf16,
            engine,
            seed: None,
            sets,
            said: Vec::new(),
            out: None,
            threads: 1,
            interrupt,
            access,
            programs: Vec::new(),
            patience: Duration::from_secs(60),
            samples: Kept::default(),
            checkpoint: Schedule::default(),
            continued: None,
            until: None,
            command: Value::Null,
            reporter,
        }
    }

    /// The flag that stops whatever runs.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.engine.settings().stop.clone()
    }
}

impl Default for Launch {
    fn default() -> Self {
        Self::new(Place::Host, Settings::default())
    }
}
