//! The list of checks, and running what a filter names.
use super::row::Row;
use super::{attention, cases, flat, ops, products, products_reverse, products_wgmma, record, wrappers};
use crate::Result;
use crate::gpu::{Device, Dtype};
use std::rc::Rc;

/// Makes the rows of a check on a device.
type Rows = dyn Fn(&Rc<dyn Device>) -> Vec<Row>;

/// Checks that share their set-up: the names of their rows, known before they run.
pub struct Check {
    pub names: Vec<String>,
    pub run: Box<Rows>,
}

impl Check {
    /// One that gives one row, or says why it could not.
    pub(super) fn one(name: &str, run: impl Fn(&Rc<dyn Device>) -> Result<Row> + 'static) -> Self {
        let owned = name.to_string();
        let run = move |device: &Rc<dyn Device>| vec![run(device).unwrap_or_else(|e| Row::failed(&owned, "", "", e))];
        Self { names: vec![name.to_string()], run: Box::new(run) }
    }
}

/// Ops that engines of devices never have: the host makes them of others that have kernels.
const HOST_ONLY: [&str; 4] =
    ["batch_norm_relu", "batch_norm_add_relu", "conv2d_batch_norm_relu", "conv2d_batch_norm_add_relu"];

/// All checks, on numbers drawn from `seed`.
pub fn checks(seed: u64) -> Vec<Check> {
    let mut all: Vec<Check> = Vec::new();
    let cases = cases(seed).into_iter().filter(|case| !HOST_ONLY.contains(&case.op.name()));
    for case in cases.map(Rc::new) {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let (names, case) = (ops::names(&case), case.clone());
            all.push(Check { names, run: Box::new(move |device| ops::check_op(device, &case, dtype)) });
        }
    }
    all.extend(attention::checks(seed));
    all.extend(flat::checks(seed));
    all.extend(products::checks(seed));
    all.extend(products_reverse::checks(seed));
    all.extend(products_wgmma::checks(seed));
    all.extend(wrappers::checks(seed));
    all.extend(record::checks());
    all
}

/// Run those checks that have a row with a name that is `wanted`, and hand over each such row as it comes.
///
/// # Errors
/// What `each` returns.
pub fn run(
    device: &Rc<dyn Device>,
    checks: &[Check],
    wanted: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    for check in checks.iter().filter(|c| c.names.iter().any(|n| wanted(n))) {
        (check.run)(device).into_iter().filter(|row| wanted(&row.name)).try_for_each(&mut *each)?;
    }
    Ok(())
}

/// What kernels of the emulator's own tests begin with.
#[cfg(feature = "emulator")]
const PLANTED: [&str; 2] = ["bug_", "right_"];

/// Whether every kernel that the emulator has is among those `launched`: what no check runs, no check judges.
#[cfg(feature = "emulator")]
pub fn coverage(launched: &std::collections::BTreeSet<String>) -> Row {
    let mut all = crate::gpu::emulator::kernels();
    all.retain(|kernel| !PLANTED.iter().any(|prefix| kernel.name.starts_with(prefix)));
    let missed: Vec<&str> = all.iter().map(|k| k.name.as_str()).filter(|name| !launched.contains(*name)).collect();
    let missed = match missed.len() {
        0 => Ok(()),
        n => Err(format!("{n} of {} kernels were not launched: {}", all.len(), missed.join(" "))),
    };
    Row::exact("coverage", "", "", missed)
}
