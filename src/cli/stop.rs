//! Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends the process at once.
use crate::{Error, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// A flag that turns true when the user wants the run to stop.
///
/// # Errors
/// If the operating system refuses the handler.
pub fn on_interrupt() -> Result<&'static AtomicBool> {
    // One process may make several runs (quickstart).
    static WATCHED: OnceLock<Result<(), String>> = OnceLock::new();
    let refused = |why: &String| Error::Io {
        doing: "watch for",
        path: "Ctrl-C".into(),
        source: std::io::Error::other(why.clone()),
    };
    WATCHED.get_or_init(|| watch().map_err(|e| e.to_string())).as_ref().map(|()| &STOP).map_err(refused)
}

fn asked() {
    if STOP.swap(true, Ordering::SeqCst) {
        std::process::exit(130);
    }
    eprintln!("\nstopping after this step, to save; once more to stop at once");
}

/// SIGINT and SIGTERM, and SIGHUP unless it is ignored: a run under nohup goes on when its terminal closes.
#[cfg(unix)]
fn watch() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut wanted = vec![SIGINT, SIGTERM];
    wanted.extend((!ignores(SIGHUP)).then_some(SIGHUP));
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(|_| asked()))?;
    Ok(())
}

/// Whether this process was started with a signal ignored; where the system does not tell, it counts as ignored.
#[cfg(unix)]
fn ignores(signal: i32) -> bool {
    let mask = super::doctor::proc_line("/proc/self/status", "SigIgn");
    mask.and_then(|m| u64::from_str_radix(&m, 16).ok()).is_none_or(|m| m >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn watch() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(asked)
}
