//! `--require 'accuracy>=0.95'`: what the final network must reach, or the command ends with exit code 3.
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    metric: String,
    relation: &'static str,
    value: f64,
}

impl FromStr for Requirement {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is no requirement; wanted METRIC>=NUMBER or METRIC<=NUMBER, as 'accuracy>=0.95'");
        let (relation, (metric, value)) =
            [">=", "<="].into_iter().find_map(|r| Some((r, s.split_once(r)?))).ok_or_else(wrong)?;
        let value: f64 = value.trim().parse().map_err(|_| wrong())?;
        if metric.trim().is_empty() || !value.is_finite() {
            return Err(wrong());
        }
        Ok(Self { metric: metric.trim().to_lowercase(), relation, value })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}{}", self.metric, self.relation, self.value)
    }
}

impl Serialize for Requirement {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Holds the final network's held-out metrics against what was required.
///
/// # Errors
/// [`Error::TargetNotMet`] names every requirement missed; [`Error::Usage`] a metric that was not measured.
pub fn check(required: &[Requirement], metrics: &BTreeMap<String, f64>) -> Result<()> {
    let mut missed = Vec::new();
    for r in required {
        let Some(&got) = metrics.get(&r.metric) else {
            let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
            let hint = match known.is_empty() {
                true => "give held-out data with --eval-data".to_string(),
                false => format!("this task has {}", known.join(", ")),
            };
            return Err(Error::usage(format!("--require '{r}'"), "this metric was not measured", hint));
        };
        // Written so that NaN meets nothing.
        let met = if r.relation == ">=" { got >= r.value } else { got <= r.value };
        if !met {
            missed.push(format!("wanted {r}, got {got}"));
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(Error::TargetNotMet(missed.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_parse_and_judge() {
        for text in ["accuracy>=0.95", "loss<=0.1"] {
            assert_eq!(text.parse::<Requirement>().unwrap().to_string(), text);
        }
        for text in ["accuracy", "accuracy=0.9", ">=0.9", "accuracy>=high", "accuracy>=NaN"] {
            assert!(text.parse::<Requirement>().is_err(), "{text}");
        }
        let metrics = BTreeMap::from([("accuracy".to_string(), 0.9), ("loss".to_string(), f64::NAN)]);
        let judge = |text: &str| check(&[text.parse().unwrap()], &metrics);
        assert!(judge("accuracy>=0.9").is_ok());
        assert_eq!(judge("accuracy>=0.91").unwrap_err().exit_code(), 3);
        assert_eq!(judge("loss<=1").unwrap_err().exit_code(), 3);
        assert_eq!(judge("f1>=1").unwrap_err().exit_code(), 2);
    }
}
