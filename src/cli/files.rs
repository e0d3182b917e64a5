//! The flags of a run that name data and folders.
use super::flags::set;
use super::require::Requirement;
use super::settings::{SaveDtype, Settings};
use super::size::ImageSize;
use std::path::PathBuf;

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataFlags {
    /// Training data, as KIND:PATH?key=value; `fipk --help` lists the kinds
    #[arg(long, value_name = "SPEC")]
    pub data: Option<String>,
    /// Held-out data to judge by, or none [default: the whole held-out split that lies beside --data, if it is a folder]
    #[arg(long, value_name = "SPEC|none")]
    pub eval_data: Option<String>,
    /// Most tokens of a text, special ones included; longer ones are cut [default: 128]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(3..))]
    pub max_length: Option<u32>,
    /// Pixels of the images the network sees, both sides or HEIGHTxWIDTH; a vision transformer's positions are interpolated
    /// [default: the model's own]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<ImageSize>,
}

impl DataFlags {
    pub fn apply(self, s: &mut Settings) {
        s.data = self.data.or(s.data.take());
        s.eval_data = self.eval_data.or(s.eval_data.take());
        set(&mut s.max_length, self.max_length.map(|n| n as usize));
        s.image_size = self.image_size.or(s.image_size);
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutFlags {
    /// The run's folder: config.toml, metrics.jsonl, checkpoints/, model/, report.html
    #[arg(long, value_name = "RUN")]
    pub out: Option<PathBuf>,
    /// Replace --out if it is a run or a model
    #[arg(long)]
    pub overwrite: bool,
    /// Type of the stored weights [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub save_dtype: Option<SaveDtype>,
    /// End with exit code 3 unless the stored network meets this on held-out data, as 'accuracy>=0.95'; repeatable
    #[arg(long, value_name = "CONDITION")]
    pub require: Vec<Requirement>,
}

impl OutFlags {
    pub fn apply(&self, s: &mut Settings) {
        set(&mut s.save_dtype, self.save_dtype);
        if !self.require.is_empty() {
            s.require.clone_from(&self.require);
        }
    }
}
