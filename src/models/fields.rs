//! Typed reading of a `config.json`'s map: every error names the file and the key.
use super::config::{RawConfig, activation};
use crate::ops::Activation;
use crate::{Error, Result};
use serde_json::Value;

/// A map, and what errors call the file it is from.
pub(super) struct Fields<'a> {
    pub place: &'a str,
    pub raw: &'a RawConfig,
}

impl Fields<'_> {
    /// A value that is there and not null, which `transformers` treats as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|v| !v.is_null())
    }

    pub fn size(&self, key: &str, default: Option<usize>, max: usize) -> Result<usize> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (value, _) => match value.and_then(Value::as_u64) {
                Some(n @ 1..) if n <= max as u64 => Ok(n as usize),
                _ => {
                    let got = value.map_or("nothing".into(), Value::to_string);
                    Err(self.bad(format!("{key}: wanted a whole number from 1 to {max}, got {got}")))
                }
            },
        }
    }

    /// Probabilities, epsilons and standard deviations: all lie in [0, 1].
    pub fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_f64() {
                Some(x) if (0.0..=1.0).contains(&x) => Ok(x),
                _ => Err(self.bad(format!("{key}: wanted a number from 0 to 1, got {value}"))),
            },
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.bad(format!("{key}: wanted true or false, got {other}"))),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.bad(format!("{key}: wanted text, got {other}"))),
        }
    }

    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text(key)?.unwrap_or(default);
        activation(name).ok_or_else(|| {
            let hint = "fipk does gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, tanh";
            Error::unsupported(self.place, format!("{key} {name:?}"), hint)
        })
    }

    pub fn bad(&self, what: String) -> Error {
        Error::model(self.place, what, "correct config.json, or fetch it again")
    }
}
