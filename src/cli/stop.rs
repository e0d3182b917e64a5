//! Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends the process at once.
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// A flag that turns true when the user wants the run to stop.
///
/// # Errors
/// If the operating system refuses the handler.
pub fn on_interrupt() -> Result<&'static AtomicBool> {
    let set = ctrlc::try_set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step, to save; once more to stop at once");
    });
    match set {
        // Set before, by this function: one process may make several runs (quickstart).
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(&STOP),
        Err(e) => Err(Error::Io { doing: "watch for", path: "Ctrl-C".into(), source: std::io::Error::other(e) }),
    }
}
