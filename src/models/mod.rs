//! Networks: Hugging Face's configs and folders, and the builders that turn them into graphs.
mod bert;
pub mod config;
mod distilbert;
mod fields;
pub mod folder;
pub mod head;
pub mod hub;
mod mlp;
mod network;
mod resnet;
mod sample;
mod vgg;
mod vit;

pub use config::Config;
pub use folder::ModelFolder;
pub use head::Head;
pub use network::Network;
pub use sample::{Pixels, Sample};
