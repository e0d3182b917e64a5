//! A run resolved: preset, then configuration file, then flags. Its TOML form is `config.toml` of the run folder, and
//! reading that back gives the same run.
use super::device::{Numbers, Place, Purpose, Which};
use super::frontier::Frontier;
use super::globals::Context;
use super::require::Requirement;
use super::size::ImageSize;
use crate::data::Spec;
use crate::engine::Pattern;
use crate::fip::drift::Budget;
use crate::fip::recipe::{Budget as Length, Method, Objective, Optimization, Path as SparsePath, Preset, Recipe};
use crate::fip::step::Stepping;
use crate::models::config::Config;
use crate::params::Roles;
use crate::params::save::Precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The name of the resolved configuration in a run folder.
pub const FILE: &str = "config.toml";

/// What the weights are stored as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SaveDtype {
    /// As they were in the model given; f16 and bf16 round what was trained
    Keep,
    /// As f32, exactly what was evaluated
    #[default]
    F32,
}

impl SaveDtype {
    pub fn precision(self) -> Precision {
        match self {
            Self::Keep => Precision::Keep,
            Self::F32 => Precision::F32,
        }
    }
}

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The version that resolved them; for the record.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<String>,
    /// A preprocessor_config.json for a network from scratch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocessor: Option<PathBuf>,
    /// A head that the model has is drawn anew, for the data's labels.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub new_head: bool,
    /// How far outputs may drift: the sparsity is then the most that is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Budget>,
    /// How near the highest sparsity that keeps the limits is looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_resolution: Option<f64>,
    /// Where the networks of the path are stored, and how many steps lie between two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_every: Option<u64>,
    /// Most tokens of a text, special ones included.
    pub max_length: usize,
    /// The size of images, where it is not the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<ImageSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Where the run computes and in what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Which>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Numbers>,
    pub save_dtype: SaveDtype,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Requirement>,
    pub preset: Preset,
    pub method: Method,
    pub path: SparsePath,
    pub step: Stepping,
    pub objective: Objective,
    pub optimization: Optimization,
    pub budget: Length,
    pub roles: Roles,
    /// The runs of `fipk frontier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontier: Option<Frontier>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: String::new(),
            model: None,
            arch: None,
            data: None,
            eval_data: None,
            preprocessor: None,
            new_head: false,
            drift: None,
            drift_resolution: None,
            store_path: None,
            path_every: None,
            max_length: 128,
            image_size: None,
            threads: None,
            device: None,
            dtype: None,
            save_dtype: SaveDtype::F32,
            require: Vec::new(),
            preset: Preset::Fip,
            method: Method::Fip,
            path: SparsePath::default(),
            step: Stepping::default(),
            objective: Objective::default(),
            optimization: Optimization::default(),
            budget: Length::default(),
            roles: Roles::default(),
            frontier: None,
        }
    }
}

impl Settings {
    pub fn recipe(&self) -> Recipe {
        Recipe {
            method: self.method,
            objective: self.objective.clone(),
            path: self.path.clone(),
            step: self.step.clone(),
            optimization: self.optimization.clone(),
            budget: self.budget.clone(),
            roles: self.roles.clone(),
        }
    }

    pub fn set_recipe(&mut self, r: Recipe) {
        (self.method, self.objective, self.path, self.step) = (r.method, r.objective, r.path, r.step);
        (self.optimization, self.budget, self.roles) = (r.optimization, r.budget, r.roles);
    }

    /// Preset, then file: `method`, `preset` and `batch` are the flags', where given. `config` is the model's, whose
    /// kind decides the step size a preset starts from.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key of the file that is unknown or of the wrong type.
    pub fn resolve(
        context: &Context,
        config: Option<&Config>,
        method: Option<Method>,
        preset: Option<Preset>,
        batch: Option<usize>,
    ) -> Result<Self> {
        let given = Self::of_file(context)?;
        let mlp = matches!(config, Some(Config::Mlp(_)));
        let has_batch = context.file.as_ref().and_then(|(_, t)| t.get("budget")?.get("batch")).is_some();
        let batch = batch.or(has_batch.then_some(given.budget.batch)).unwrap_or(if mlp { 64 } else { 16 });
        let preset = preset.unwrap_or(given.preset);
        let start = |preset: Preset, method: Method| {
            let mut recipe = preset.recipe(method, batch);
            if mlp {
                recipe.optimization.learning_rate = 1e-3;
            }
            let mut settings = Self { preset, ..Self::default() };
            settings.set_recipe(recipe);
            settings
        };
        let way = (preset, method.unwrap_or(given.method));
        let mut settings = start(way.0, way.1);
        if let Some((path, file)) = &context.file {
            let (mut table, mut file) = (to_table(&settings)?, file.clone());
            let named = ["method", "preset"].iter().any(|key| file.contains_key(*key));
            if named && way != (given.preset, given.method) {
                forget(&mut file, &to_table(&start(given.preset, given.method))?);
            }
            overlay(&mut table, &file);
            settings = from_table(path, table)?;
            settings.method = method.unwrap_or(settings.method);
            settings.preset = preset;
        }
        settings.version = env!("CARGO_PKG_VERSION").into();
        settings.threads = context.threads.or(Some(rayon::current_num_threads()));
        settings.settle(context)?;
        if let Some(seed) = context.seed {
            settings.budget.seed = seed;
        }
        Ok(settings)
    }

    /// Where the run computes: as the flags say, then as the settings do; settled, so that a resumed run finds the
    /// same again.
    ///
    /// # Errors
    /// As [`Place::settle`].
    pub fn settle(&mut self, context: &Context) -> Result<Place> {
        let device = context.device.or(self.device);
        // Another device than that of the settings has numbers of its own.
        let dtype = context.dtype.or(self.dtype.filter(|_| device == self.device));
        let place = Place::settle(device, dtype, Purpose::Run)?;
        (self.device, self.dtype) = (Some(place.device), Some(place.dtype));
        Ok(place)
    }

    /// Where a verb looks at a network: at the settings' device, in numbers that flags alone change.
    ///
    /// # Errors
    /// As [`Place::settle`].
    pub fn look(&self, context: &Context) -> Result<Place> {
        Place::settle(context.device.or(self.device), context.dtype, Purpose::Look)
    }

    /// The configuration file alone, over the defaults; the defaults where there is none.
    pub fn of_file(context: &Context) -> Result<Self> {
        context.file.as_ref().map_or_else(|| Ok(Self::default()), |(path, table)| from_table(path, table.clone()))
    }

    /// Those of a run folder.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Usage`]: no such file, or one that is no configuration of this version.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let table = text.parse().map_err(|e: toml::de::Error| wrong(&path, &e))?;
        from_table(&path, table)
    }

    /// As `config.toml` has it.
    pub fn to_toml(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|e| Error::usage(FILE, e.to_string(), "choose smaller numbers"))?;
        Ok(format!("# Resolved settings of this run; `fipk --config THIS` with another --out repeats it.\n{text}"))
    }

    /// The sparsity that n:m says by itself, and the recipe's own checks.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub fn check(&mut self, sparsity_given: bool) -> Result<()> {
        if let (Pattern::NofM { n, m }, true) = (self.path.scope, self.method != Method::Train) {
            let implied = 1.0 - n as f64 / m as f64;
            if sparsity_given && (self.path.sparsity - implied).abs() > 1e-9 {
                return Err(Error::usage(
                    "--sparsity",
                    format!(
                        "scope {n}:{m} leaves {n} of {m}, which is a sparsity of {implied}, got {}",
                        self.path.sparsity
                    ),
                    "leave --sparsity out",
                ));
            }
            if self.drift.is_some() {
                let what = format!("scope {n}:{m} has one sparsity, and there is nothing to search");
                return Err(Error::usage("--drift", what, "take another --scope, or `fipk drift` afterwards"));
            }
            self.path.sparsity = implied;
        }
        if let Some(got) = self.drift_resolution.filter(|r| !(*r > 0.0 && *r < 1.0)) {
            let hint = "give a share between 0 and 1, as 0.01";
            return Err(Error::usage("--drift-resolution", format!("{got} makes no sense"), hint));
        }
        if self.drift.is_some() && self.store_path.is_some() {
            let what = "a search for a sparsity takes many paths, and would store them all in one";
            return Err(Error::usage("--path", what, "leave --drift out, or store the path of one of its candidates"));
        }
        if self.path_every == Some(0) {
            return Err(Error::usage("--path-every", "0 makes no sense", "give at least 1"));
        }
        self.recipe().check()
    }

    /// Paths made absolute, so that the run can be resumed from anywhere.
    pub fn absolute(&mut self) -> Result<()> {
        if let Some(model) = &mut self.model
            && Path::new(model.as_str()).exists()
        {
            *model = absolute(Path::new(model.as_str()))?.display().to_string();
        }
        if let Some(arch) = &mut self.arch
            && Path::new(arch.as_str()).is_file()
        {
            *arch = absolute(Path::new(arch.as_str()))?.display().to_string();
        }
        for path in [&mut self.preprocessor, &mut self.store_path].into_iter().flatten() {
            *path = absolute(path)?;
        }
        for spec in [&mut self.data, &mut self.eval_data].into_iter().flatten().filter(|spec| *spec != "none") {
            let parsed: Spec = spec.parse()?;
            let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
            let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
            if parsed.path.exists() {
                *spec = format!("{kind}:{}{options}", absolute(&parsed.path)?.display());
            }
        }
        Ok(())
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}

fn to_table(settings: &Settings) -> Result<toml::Table> {
    toml::Table::try_from(settings).map_err(|e| Error::usage(FILE, e.to_string(), "choose smaller numbers"))
}

fn from_table(path: &Path, table: toml::Table) -> Result<Settings> {
    table.try_into().map_err(|e| wrong(path, &e))
}

fn wrong(path: &Path, e: &toml::de::Error) -> Error {
    let hint = "a run's config.toml shows all keys and their form";
    Error::usage(path.display().to_string(), e.message().replace('\n', " "), hint)
}

/// Takes out of a file what it has from the preset and method that it names, and not by choice: those of another way have
/// their own.
fn forget(file: &mut toml::Table, start: &toml::Table) {
    for name in ["objective", "path", "optimization"] {
        if let (Some(toml::Value::Table(have)), Some(toml::Value::Table(known))) = (file.get_mut(name), start.get(name))
        {
            *have = std::mem::take(have).into_iter().filter(|(key, value)| known.get(key) != Some(value)).collect();
        }
    }
}

/// Puts `over` on top of `base`, table by table.
fn overlay(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Output;

    fn context(toml: &str) -> Context {
        let file = (!toml.is_empty()).then(|| (PathBuf::from("f.toml"), toml.parse().unwrap()));
        Context { output: Output::new(false, true), seed: None, file, threads: None, device: None, dtype: None }
    }

    #[test]
    fn files_lie_over_presets_and_unknown_keys_are_named() {
        let file = "preset = \"paper\"\n[path]\nsparsity = 0.8\n[optimization]\nlearning_rate = 0.5\n";
        let s = Settings::resolve(&context(file), None, None, None, None).unwrap();
        let paper = Preset::Paper.recipe(Method::Fip, 16);
        assert_eq!((s.path.sparsity, s.path.pull, s.objective.anchor), (0.8, paper.path.pull, paper.objective.anchor));
        assert_eq!((s.optimization.learning_rate, s.optimization.clip), (0.5, paper.optimization.clip));

        let error = Settings::resolve(&context("[path]\nsparsty = 0.8\n"), None, None, None, None).unwrap_err();
        assert!(error.to_string().contains("sparsty") && error.exit_code() == 2, "{error}");
    }

    #[test]
    fn a_resolved_configuration_reads_back_the_same() {
        let mut s = Settings::resolve(&context(""), None, Some(Method::Gradual), None, Some(7)).unwrap();
        s.roles.exclude = vec!["*.0.*".into()];
        s.require = vec!["accuracy>=0.5".parse().unwrap()];
        s.budget.steps = Some(12);
        let text = s.to_toml().unwrap();
        let back = Settings::resolve(&context(&text), None, None, None, None).unwrap();
        assert_eq!(back, s, "{text}");
    }

    #[test]
    fn another_way_takes_of_a_configuration_what_was_chosen_alone() {
        let of = |toml: &str, method, preset| Settings::resolve(&context(toml), None, method, preset, None).unwrap();
        let mut run = of("", None, None);
        (run.path.sparsity, run.path.refresh, run.optimization.clip) = (0.8, 7, 0.3);
        let text = run.to_toml().unwrap();
        let ways = [
            (Method::Gradual, Preset::Fip),
            (Method::Fip, Preset::Paper),
            (Method::OneShot, Preset::Fip),
            (Method::Train, Preset::Fip),
        ];
        for (method, preset) in ways {
            let mut want = preset.recipe(method, 16);
            (want.path.sparsity, want.path.refresh, want.optimization.clip) = (0.8, 7, 0.3);
            assert_eq!(of(&text, Some(method), Some(preset)).recipe(), want, "{method:?} {preset:?}");
        }
        assert_eq!(of(&text, Some(Method::Fip), Some(Preset::Fip)).recipe(), run.recipe());
        // What names no way was chosen for all of them.
        assert_eq!(of("[path]\nfinish = 0.5\n", Some(Method::Fip), Some(Preset::Paper)).path.finish, 0.5);
    }

    #[test]
    fn n_of_m_says_its_own_sparsity() {
        let mut s = Settings {
            path: SparsePath { scope: Pattern::NofM { n: 1, m: 4 }, ..SparsePath::default() },
            ..Settings::default()
        };
        assert!(s.check(true).is_err());
        s.check(false).unwrap();
        assert_eq!(s.path.sparsity, 0.75);
    }
}
