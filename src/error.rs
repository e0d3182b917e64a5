//! The one error of the crate. Each variant says where, what (wanted and got) and what to do, in one line.
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong; [`Error::exit_code`] is what the command ends with.
///
/// `place` is where (a file, a tensor, a line, a flag), `what` says what was wanted and what was
/// found, `hint` what the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag, a data spec or a configuration that makes no sense.
    #[error("{place}: {what} (hint: {hint})")]
    Usage { place: String, what: String, hint: String },

    /// A model folder that cannot be read, does not fit its config, or holds bad numbers.
    #[error("{place}: {what} (hint: {hint})")]
    Model { place: String, what: String, hint: String },

    /// A data set that cannot be read or does not fit the model.
    #[error("{place}: {what} (hint: {hint})")]
    Data { place: String, what: String, hint: String },

    /// Something that is well-formed but that fipk does not do.
    #[error("{place}: {what} is not supported (hint: {hint})")]
    Unsupported { place: String, what: String, hint: String },

    /// Shapes that do not fit while a network is built: names the op and its place in the network.
    #[error("{op} at {place}: {what}")]
    Graph { op: &'static str, place: String, what: String },

    /// The operating system refused: reading, writing, creating.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },

    /// A loss, a gradient or a weight stopped being a finite number.
    #[error("{place}: {what} is not finite (hint: {hint})")]
    NotFinite { place: String, what: String, hint: String },

    /// A device that is not there or cannot be used, or that failed.
    #[error("{place}: {what} (hint: {hint})")]
    Device { place: String, what: String, hint: String },

    /// A device has no room for what was asked.
    #[error("{place}: wanted {wanted} bytes of device memory, {free} are free (hint: {hint})")]
    Memory { place: String, wanted: usize, free: usize, hint: String },

    /// The run ended well but short of what was asked; what was reached is stored.
    #[error("target not met: {0}")]
    TargetNotMet(String),

    /// Ctrl-C or SIGTERM; the state was saved.
    #[error("interrupted; {0}")]
    Interrupted(String),
}

impl Error {
    pub fn usage(place: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { place: place.into(), what: what.into(), hint: hint.into() }
    }
    pub fn model(place: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Model { place: place.into(), what: what.into(), hint: hint.into() }
    }
    pub fn data(place: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Data { place: place.into(), what: what.into(), hint: hint.into() }
    }
    pub fn unsupported(place: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { place: place.into(), what: what.into(), hint: hint.into() }
    }
    pub fn device(place: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Device { place: place.into(), what: what.into(), hint: hint.into() }
    }
    pub fn not_finite(place: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::NotFinite { place: place.into(), what: what.into(), hint: hint.into() }
    }

    /// `map_err(Error::io("read", path))` for the operating system's errors.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// 1 failed, 2 usage, 3 target not met, 4 bad model or data, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::TargetNotMet(_) => 3,
            Self::Model { .. } | Self::Data { .. } | Self::Unsupported { .. } | Self::Graph { .. } => 4,
            Self::Io { .. } | Self::NotFinite { .. } | Self::Device { .. } | Self::Memory { .. } => 1,
            Self::Interrupted(_) => 130,
        }
    }
}
