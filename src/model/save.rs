//! Writing models: whole, as transformers opens them, or an adapter alone, as PEFT does.

use super::chat::NAMED;
use super::lora::PREFIX;
use super::open::CARRIED;
use super::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, GENERATION, Model, SaveDtype, weights};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use serde_json::{Value, json};

/// Whether a save writes a file or a folder of this name.
pub fn is_saved(name: &str) -> bool {
    let own = [CONFIG, weights::SINGLE, ADAPTER_CONFIG, ADAPTER_WEIGHTS, NAMED];
    own.iter().chain(&CARRIED).any(|known| *known == name)
}

impl Model {
    /// Writes a folder that transformers opens: configuration, weights, tokenizer and what else came with the model.
    /// Of a model with an adapter the adapter alone is written, in a folder that PEFT opens; `merge` makes a whole one.
    pub fn save(&self, dir: &Location, dtype: SaveDtype) -> Result<()> {
        if dir.as_os_str().is_empty() {
            return Err(Error::value("save: the folder's name is empty").hint("for instance model.save(\"out/model\")"));
        }
        self.check_place(dir)?;
        files::fill_folder(dir, |part| {
            match self.adapter.is_some() {
                true => self.save_adapter(part, dtype)?,
                false => self.save_whole(part, dtype)?,
            }
            for (name, bytes) in self.files.iter() {
                let path = part.join(name);
                path.folder().map_or(Ok(()), |folder| files::create_folder(&folder))?;
                files::write(&path, bytes)?;
            }
            Ok(())
        })?;
        if self.adapter.is_some() { Ok(()) } else { weights::remove_shards(dir) }
    }

    /// A folder holds a whole model or an adapter: of both, transformers would put one on top of the other.
    fn check_place(&self, dir: &Location) -> Result<()> {
        let (there, what) = match self.adapter.is_some() {
            true => {
                ([CONFIG, weights::SINGLE, weights::INDEX], "a whole model, beside which an adapter cannot be saved")
            }
            false => (
                [ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_WEIGHTS],
                "an adapter, beside which a whole model cannot be saved",
            ),
        };
        match there.iter().find(|name| files::is_file(&dir.join(name))) {
            None => Self::check_own(dir),
            Some(name) => {
                Err(Error::file(format!("{} holds {what} ({name})", dir.display())).hint("save into another folder"))
            }
        }
    }

    /// A configuration is replaced by a model's alone: one of another program has the same name.
    fn check_own(dir: &Location) -> Result<()> {
        for (name, keys) in [(CONFIG, ["model_type", "architectures"]), (ADAPTER_CONFIG, ["peft_type", "lora_alpha"])] {
            let path = dir.join(name);
            let Some(text) = files::is_file(&path).then(|| files::text(&path).ok()).flatten() else { continue };
            let of_model = serde_json::from_str::<Value>(&text)
                .is_ok_and(|found| keys.iter().any(|key| found.get(key).is_some_and(|value| !value.is_null())));
            if !of_model {
                let what = format!("{} is no model's: it has neither {} nor {}", path.display(), keys[0], keys[1]);
                return Err(Error::file(what).hint("nothing was changed; move it away, or save into another folder"));
            }
        }
        Ok(())
    }

    fn save_whole(&self, dir: &Location, dtype: SaveDtype) -> Result<()> {
        self.write_file(&dir.join(weights::SINGLE), "", |_| true, dtype)?;
        write_json(&dir.join(CONFIG), &self.config.to_json_as(dtype.long_name()))?;
        if !self.files.contains_key(GENERATION) {
            let generation = json!({"eos_token_id": self.config.eos, "pad_token_id": self.config.pad});
            write_json(&dir.join(GENERATION), &generation)?;
        }
        Ok(())
    }

    /// The adapter's weights, those of a head that is trained beside it, and what its file replaced.
    fn save_adapter(&self, dir: &Location, dtype: SaveDtype) -> Result<()> {
        let adapter = self.adapter.as_ref().expect("the caller saw one");
        let head: Vec<String> = self.config.measuring_parameters().into_iter().map(|(name, _)| name).collect();
        let own = self.config.parameters().len();
        let beside = |name: &String| head.contains(name) || adapter.replaced.contains(name);
        let chosen = |i: usize| i >= own || beside(&self.parameters[i].name);
        self.write_file(&dir.join(ADAPTER_WEIGHTS), PREFIX, chosen, dtype)?;
        write_json(&dir.join(ADAPTER_CONFIG), &adapter.to_json(&self.config))
    }

    /// Writes the chosen parameters, `prefix` before their names.
    fn write_file(
        &self,
        path: &Location,
        prefix: &str,
        chosen: impl Fn(usize) -> bool,
        dtype: SaveDtype,
    ) -> Result<()> {
        let mut named = Vec::new();
        for (i, p) in self.parameters.iter().enumerate() {
            if chosen(i) {
                named.push((format!("{prefix}{}", p.name), p.value.dims().to_vec(), p.numbers()?));
            }
        }
        named.sort_by(|a, b| a.0.cmp(&b.0));
        weights::write(path, &named, dtype)
    }
}

pub(super) fn write_json(path: &Location, value: &Value) -> Result<()> {
    files::replace(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}
