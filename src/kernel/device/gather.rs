//! Rows of a table on a device, and their gradients added back: without atomics, in the order of the rows.

use super::launch::over_rows;
use crate::error::Result;
use crate::gpu::{Array, DType, Kernel};
use crate::kernel::elementwise::Gather;
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

impl DeviceForm<1> for Gather {
    type Kept = Var;

    /// Embeddings begin the residual stream, so rows of a parameter are f32; those of an activation have its type.
    fn device(&self, _: &Tape, [table]: [&Var; 1]) -> Result<(Array, Var)> {
        let x = table.array()?;
        let (gpu, (_, width), count) = (x.gpu(), x.dims2()?, self.ids.len());
        let dtype = if table.is_parameter() { DType::F32 } else { x.dtype() };
        let ids = gpu.upload("rows' numbers", &self.ids, &[count])?;
        let rows = gpu.empty("rows of a table", dtype, &[count, width])?;
        let kernel = Kernel::typed("gather", "gather", &[("X", x.dtype()), ("Y", dtype)]);
        over_rows(gpu, &kernel, [count, width], &[x.into(), (&ids).into(), (&rows).into(), width.into()])?;
        Ok((rows, table.clone()))
    }

    fn device_backward(&self, table: &Var, dy: &Array, grads: &mut Grads) -> Result<()> {
        let Some(sum) = grads.slot(table)? else { return Ok(()) };
        let (gpu, (_, width)) = (sum.gpu(), sum.dims2()?);
        let ByRow { distinct, starts, order } = ByRow::of(&self.ids);
        let count = distinct.len();
        let [distinct, starts, order] =
            [distinct, starts, order].map(|list| gpu.upload("rows' numbers", &list, &[list.len()]));
        let (distinct, starts, order) = (distinct?, starts?, order?);
        let kernel = Kernel::typed("gather", "scatter", &[("X", sum.dtype()), ("Y", dy.dtype())]);
        let lists = [(&distinct).into(), (&starts).into(), (&order).into()];
        let args = [(&sum).into(), dy.into(), lists[0], lists[1], lists[2], width.into()];
        over_rows(gpu, &kernel, [count, width], &args)
    }
}

/// Which rows were taken from each row of the table.
struct ByRow {
    /// The rows of the table that were taken, each once.
    distinct: Vec<u32>,
    /// Where the rows of each begin in `order`, and where the last ones end.
    starts: Vec<u32>,
    /// The rows taken, by `distinct`, then in their own order.
    order: Vec<u32>,
}

impl ByRow {
    fn of(ids: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        order.sort_by_key(|&row| ids[row as usize]); // stable: rows of one id stay in their order
        let (mut distinct, mut starts) = (Vec::new(), Vec::new());
        for (at, &row) in order.iter().enumerate() {
            let id = ids[row as usize];
            if distinct.last() != Some(&id) {
                distinct.push(id);
                starts.push(at as u32);
            }
        }
        starts.push(order.len() as u32);
        Self { distinct, starts, order }
    }
}
