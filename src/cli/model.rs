//! Opening a model for a verb: folder, network, layout; reading data the way it wants it; writing it again.
use super::device::{Place, open_engine};
use super::settings::SaveDtype;
use super::size::ImageSize;
use crate::Result;
use crate::data::images::resize::Filter;
use crate::data::preprocess::Target;
use crate::data::{Form, Preprocess, Reading};
use crate::engine::{Engine, Vector};
use crate::models::config::{Config, RawConfig};
use crate::models::folder::ModelFolder;
use crate::models::{Head, Network, Pixels};
use crate::params::atomic::Folder;
use crate::params::{Layout, Roles};
use serde_json::{Map, Value};

/// A stored model with its head.
#[derive(Debug)]
pub struct Model {
    pub folder: ModelFolder,
    pub network: Network,
    /// Of the images it is to see, where it is not the folder's.
    size: Option<ImageSize>,
}

impl Model {
    /// Opens a folder, or a Hugging Face id from the local cache.
    ///
    /// # Errors
    /// Of the folder, its config and its weights; [`crate::Error::Model`] for a base network without a head.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_at(name, None)
    }

    /// As [`Model::open`], for images of `size`.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Config::at_size`].
    pub fn open_at(name: &str, size: Option<ImageSize>) -> Result<Self> {
        let folder = ModelFolder::open(name)?;
        let head = folder.head(None)?;
        let config = match size {
            Some(size) => folder.config.at_size(name, &folder.raw, size.sides(), true)?.0,
            None => folder.config.clone(),
        };
        let network = Network::new(config, head)?;
        Ok(Self { folder, network, size })
    }

    pub fn layout(&self, roles: &Roles) -> Result<Layout> {
        let params = self.network.params()?;
        let roles = roles.resolve(&params)?;
        Ok(Layout::new(&params, &roles))
    }

    /// An engine with the weights in it.
    pub fn engine(&self, place: Place, layout: Layout) -> Result<(Box<dyn Engine>, Vector)> {
        let weights = self.network.load(&self.folder, &layout, None)?;
        let mut engine = open_engine(place, layout)?;
        let w = engine.zeros()?;
        engine.write(w, 0, &weights)?;
        Ok((engine, w))
    }

    /// How data is read for this model.
    pub fn reading(&self, max_length: usize, seed: u64) -> Result<Reading> {
        let mut how = reading(Some(&self.folder), &self.network.config, Some(self.network.head), max_length, seed)?;
        if let Some(map) = preprocessor_at(&self.folder, self.size)? {
            how.preprocess = Preprocess::from_map(&map, &self.folder.dir.display().to_string())?;
        }
        Ok(how)
    }

    /// Writes the model with new weights into `out`, which is not committed yet.
    pub fn write(
        &self,
        out: &Folder,
        layout: &Layout,
        weights: &[f32],
        raw: &RawConfig,
        dtype: SaveDtype,
    ) -> Result<()> {
        self.folder.write(out, &self.network.tensors(layout, weights), raw, dtype.precision(), 0)
    }
}

/// A folder's `preprocessor_config.json` for images of another size; `None` where the folder's own is right.
pub fn preprocessor_at(folder: &ModelFolder, size: Option<ImageSize>) -> Result<Option<Map<String, Value>>> {
    size.map(|size| Preprocess::map_at(&folder.dir, size.sides())).transpose()
}

/// How data is read for a network; `head: None` for one that is still to be made for the data.
pub fn reading(
    folder: Option<&ModelFolder>,
    config: &Config,
    head: Option<Head>,
    max_length: usize,
    seed: u64,
) -> Result<Reading> {
    let (vocabulary, positions) = match config {
        Config::Bert(c) => (Some(c.vocab_size), c.max_position_embeddings),
        Config::DistilBert(c) => (Some(c.vocab_size), c.max_position_embeddings),
        _ => (None, usize::MAX),
    };
    let pixels = Network { config: config.clone(), head: head.unwrap_or(Head::None) }.pixels();
    let (form, own) = match pixels {
        Some(Pixels::Image { channels, height, width }) => (Form::Planes { channels }, Some((height, width))),
        _ => (Form::Flat, None),
    };
    let preprocess = match folder {
        Some(folder) => Preprocess::load(&folder.dir)?,
        // A network from scratch gets images of its own size.
        None => Preprocess { resize: own.map(|own| (Target::Exact(own), Filter::Bilinear)), ..Preprocess::default() },
    };
    Ok(Reading {
        tokenizer: folder.filter(|_| vocabulary.is_some()).map(|f| f.dir.clone()),
        max_length: max_length.min(positions),
        with_types: matches!(config, Config::Bert(_)),
        vocabulary,
        labels: matches!(head, Some(Head::Classification { .. })).then(|| config.task().labels.clone()),
        preprocess,
        form,
        seed,
        ..Reading::default()
    })
}
