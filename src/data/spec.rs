//! A data SPEC: `KIND:PATH?key=value&..`, parsed and checked before any file is opened.
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::glue::Task as GlueTask;
use super::images::augment::Augment;
use super::images::cifar::Set;
use crate::{Error, Result};

/// What kind of data a spec names; the part before the colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `mnist:DIR`: IDX images and labels, plain or gzipped.
    Mnist,
    /// `digits:COUNT`: digits drawn from strokes; needs no file.
    Digits(usize),
    /// `cifar10:DIR`, `cifar100:DIR`: the binary files, or Hugging Face's parquet.
    Cifar(Set),
    /// `images:DIR`: a folder of PNG and JPEG files a class.
    Images,
    /// `parquet:FILE|DIR`: any table with a column of PNG or JPEG bytes and a label column.
    Parquet,
    /// `glue/TASK:DIR`: one of the GLUE tasks.
    Glue(GlueTask),
    /// `text:FILE|DIR`: any table with a text column and a label column.
    Text,
    /// `lm:FILE|DIR`: plain text for masked-language modelling.
    Lm,
}

/// What to do with a line that cannot be read (`?bad_lines=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadLines {
    #[default]
    Refuse,
    /// Leave it out and say how many were left out; the published QQP needs this.
    Skip,
}

/// A parsed data spec. [`fmt::Display`] gives back the text it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    source: String,
    pub kind: Kind,
    pub path: PathBuf,
    /// `limit=N`: a random N when `seed` is given, else the first N.
    pub limit: Option<usize>,
    pub split: Option<String>,
    pub seed: Option<u64>,
    /// `text=`, `text2=`, `label=`: column names of a `text:` spec.
    pub text: Option<String>,
    pub text2: Option<String>,
    /// Of a `parquet:` spec as well, as is `image=`; of `cifar100:`, `fine` or `coarse`.
    pub label: Option<String>,
    pub image: Option<String>,
    /// `classes=0-4,cat`: only these classes of a data set of images.
    pub classes: Option<Vec<String>>,
    /// `task=3`: only rows whose column `task` says so, in a table of images.
    pub of_task: Option<i64>,
    /// `augment=flip,crop:4`: random changes of images in training.
    pub augment: Option<Augment>,
    /// `labels=a,b,c`: the class names of a `text:` or `parquet:` spec, in order of their number.
    pub labels: Option<Vec<String>>,
    /// `task=regression`: the label column of a `text:` spec holds scores.
    pub regression: bool,
    pub bad_lines: BadLines,
}

const KINDS: &str =
    "mnist:DIR, cifar10:DIR, cifar100:DIR, images:DIR, parquet:FILE, digits:COUNT, glue/TASK:DIR, text:FILE, lm:FILE";
const COMMON: &[&str] = &["limit", "split", "seed"];

impl Kind {
    fn parse(name: &str, path: &str, place: &str) -> Result<Self> {
        match name {
            "mnist" => Ok(Self::Mnist),
            "text" => Ok(Self::Text),
            "lm" => Ok(Self::Lm),
            "digits" => match path.parse() {
                Ok(count) if count > 0 => Ok(Self::Digits(count)),
                _ => Err(Error::usage(
                    place,
                    format!("digits: wants how many to draw, got `{path}`"),
                    "write a count above zero, as in digits:2000?seed=1",
                )),
            },
            "cifar10" => Ok(Self::Cifar(Set::Ten)),
            "cifar100" => Ok(Self::Cifar(Set::Hundred)),
            "images" => Ok(Self::Images),
            "parquet" => Ok(Self::Parquet),
            _ => match name.strip_prefix("glue/") {
                Some(task) => GlueTask::parse(task).map(Self::Glue).ok_or_else(|| {
                    Error::usage(
                        place,
                        format!("unknown GLUE task `{task}`"),
                        format!("the tasks are {}", GlueTask::names()),
                    )
                }),
                None if name == "glue" => Err(Error::usage(
                    place,
                    "glue: wants a task",
                    format!("write glue/TASK:DIR with TASK one of {}", GlueTask::names()),
                )),
                None => {
                    Err(Error::usage(place, format!("unknown data kind `{name}`"), format!("the kinds are {KINDS}")))
                }
            },
        }
    }

    /// The keys beyond [`COMMON`] that this kind understands.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Lm => &[],
            Self::Mnist | Self::Digits(_) => &["augment"],
            Self::Cifar(_) => &["classes", "image", "label", "task", "augment"],
            Self::Images => &["classes", "augment"],
            Self::Parquet => &["classes", "image", "label", "labels", "task", "augment"],
            Self::Glue(_) => &["bad_lines"],
            Self::Text => &["text", "text2", "label", "labels", "task", "bad_lines"],
        }
    }
}

impl FromStr for Spec {
    type Err = Error;

    /// # Errors
    /// [`Error::Usage`] names the allowed kinds, keys or values.
    fn from_str(source: &str) -> Result<Self> {
        let place = format!("data spec `{source}`");
        let (head, options) = source.split_once('?').map_or((source, None), |(head, rest)| (head, Some(rest)));
        let Some((name, path)) = head.split_once(':') else {
            return Err(Error::usage(
                place,
                "wants KIND:PATH, got no colon",
                format!("write one of {KINDS}, then ?key=value&.. for options"),
            ));
        };
        let kind = Kind::parse(name, path, &place)?;
        if path.is_empty() {
            return Err(Error::usage(place, "the path is empty", format!("write {name}:PATH")));
        }
        let mut spec = Self {
            source: source.to_string(),
            kind,
            path: PathBuf::from(path),
            limit: None,
            split: None,
            seed: None,
            text: None,
            text2: None,
            label: None,
            image: None,
            classes: None,
            of_task: None,
            augment: None,
            labels: None,
            regression: false,
            bad_lines: BadLines::Refuse,
        };
        let mut seen = Vec::new();
        for option in options.unwrap_or("").split('&').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            spec.set(key, value, &place)?;
            if seen.contains(&key) {
                return Err(Error::usage(place, format!("`{key}` is given twice"), "keep one of the two"));
            }
            seen.push(key);
        }
        Ok(spec)
    }
}

impl Spec {
    fn set(&mut self, key: &str, value: &str, place: &str) -> Result<()> {
        let keys = self.kind.keys();
        if !COMMON.contains(&key) && !keys.contains(&key) {
            let allowed: Vec<&str> = COMMON.iter().chain(keys).copied().collect();
            return Err(Error::usage(
                place,
                format!("unknown option `{key}`"),
                format!("this kind takes {}", allowed.join(", ")),
            ));
        }
        let wrong = |wanted: &str| Error::usage(place, format!("{key} wants {wanted}, got `{value}`"), "correct it");
        if value.is_empty() {
            return Err(wrong("a value"));
        }
        match key {
            "limit" => match value.parse() {
                Ok(n) if n > 0 => self.limit = Some(n),
                _ => return Err(wrong("a whole number above zero")),
            },
            "seed" => self.seed = Some(value.parse().map_err(|_| wrong("a whole number from 0 to 2^64 - 1"))?),
            "split" => self.split = Some(value.to_string()),
            "text" => self.text = Some(value.to_string()),
            "text2" => self.text2 = Some(value.to_string()),
            "label" => self.label = Some(value.to_string()),
            "image" => self.image = Some(value.to_string()),
            "classes" => self.classes = Some(value.split(',').map(|word| word.trim().to_string()).collect()),
            "augment" => self.augment = Some(value.parse().map_err(|what: String| wrong(&what))?),
            "task" if self.kind != Kind::Text => {
                self.of_task = Some(value.parse().map_err(|_| wrong("the number of a task"))?);
            }
            "labels" => {
                let names: Vec<String> = value.split(',').map(|name| name.trim().to_string()).collect();
                let repeated = names.iter().enumerate().any(|(i, name)| name.is_empty() || names[..i].contains(name));
                if repeated || names.len() < 2 {
                    return Err(wrong("two or more different names with commas between"));
                }
                self.labels = Some(names);
            }
            "task" => match value {
                "classification" => self.regression = false,
                "regression" => self.regression = true,
                _ => return Err(wrong("classification or regression")),
            },
            _ => match value {
                "refuse" => self.bad_lines = BadLines::Refuse,
                "skip" => self.bad_lines = BadLines::Skip,
                _ => return Err(wrong("refuse or skip")),
            },
        }
        Ok(())
    }

    /// For messages about this spec as a whole.
    pub(super) fn place(&self) -> String {
        format!("data spec `{}`", self.source)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(spec: &str, kind: fn(&Error) -> bool, says: &[&str]) {
        let error = spec.parse::<Spec>().expect_err(spec);
        assert!(kind(&error), "{spec}: {error:?}");
        for part in says {
            assert!(error.to_string().contains(part), "{spec}: `{error}` does not say `{part}`");
        }
    }

    #[test]
    fn a_spec_says_everything_about_itself() {
        let spec: Spec =
            "text:a/b.csv?text=review&label=stars&limit=10&seed=3&split=test&labels=bad, good".parse().unwrap();
        assert_eq!(spec.kind, Kind::Text);
        assert_eq!(spec.path, PathBuf::from("a/b.csv"));
        assert_eq!((spec.limit, spec.seed, spec.split.as_deref()), (Some(10), Some(3), Some("test")));
        assert_eq!((spec.text.as_deref(), spec.label.as_deref()), (Some("review"), Some("stars")));
        assert_eq!(spec.labels, Some(vec!["bad".into(), "good".into()]));
        assert_eq!(
            spec.to_string(),
            "text:a/b.csv?text=review&label=stars&limit=10&seed=3&split=test&labels=bad, good"
        );
        let cifar: Spec = "cifar100:d?classes=0-9,whale&augment=flip,crop:4&task=2".parse().unwrap();
        assert_eq!(cifar.classes, Some(vec!["0-9".into(), "whale".into()]));
        assert_eq!((cifar.of_task, cifar.augment.unwrap().to_string().as_str()), (Some(2), "flip,crop:4"));
        assert_eq!("digits:20".parse::<Spec>().unwrap().kind, Kind::Digits(20));
        assert_eq!("glue/sst2:d".parse::<Spec>().unwrap().kind, Kind::Glue(GlueTask::Sst2));
        assert_eq!("glue/STS-B:d".parse::<Spec>().unwrap().kind, Kind::Glue(GlueTask::Stsb));
    }

    #[test]
    fn a_wrong_spec_says_what_is_allowed() {
        let usage = |e: &Error| matches!(e, Error::Usage { .. });
        fails("mnist", usage, &["no colon", "glue/TASK:DIR"]);
        fails("mnits:x", usage, &["unknown data kind `mnits`", "mnist:DIR"]);
        fails("cifar10:x?labels=a,b", usage, &["`labels`", "classes"]);
        fails("cifar100:x?task=two", usage, &["number of a task", "`two`"]);
        fails("images:x?augment=flip,blur", usage, &["crop:PIXELS", "`blur`"]);
        fails("images:x?label=a", usage, &["`label`"]);
        fails("glue/wnli:x", usage, &["wnli", "sst2, cola"]);
        fails("glue:x", usage, &["wants a task"]);
        fails("mnist:", usage, &["path is empty"]);
        fails("mnist:d?limt=3", usage, &["`limt`", "limit, split, seed"]);
        fails("mnist:d?text=a", usage, &["`text`"]);
        fails("mnist:d?limit=0", usage, &["above zero"]);
        fails("mnist:d?limit=-1", usage, &["got `-1`"]);
        fails("mnist:d?seed=1.5", usage, &["got `1.5`"]);
        fails("mnist:d?seed", usage, &["wants a value"]);
        fails("mnist:d?seed=1&seed=2", usage, &["given twice"]);
        fails("digits:many", usage, &["`many`"]);
        fails("digits:0", usage, &["above zero"]);
        fails("text:f?task=ranking", usage, &["classification or regression"]);
        fails("text:f?labels=a,a", usage, &["different names"]);
        fails("text:f?bad_lines=maybe", usage, &["refuse or skip"]);
    }
}
