//! `kl<=0.01,flips<=0.5%`: how far outputs may drift.
use crate::ops::Distance;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// What of an example's distances is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Mean,
    Median,
    P90,
    P99,
    Max,
}

impl Of {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Max => "max",
        }
    }
}

/// A number that says how far two networks are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Of an output distance over examples.
    Distance(Distance, Of),
    /// The share of examples (of attended positions) on which another class comes first.
    Flips,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Flips => f.write_str("flips"),
            Self::Distance(kind, Of::Mean) => write!(f, "{kind}"),
            Self::Distance(kind, which) => write!(f, "{kind}.{}", which.as_str()),
        }
    }
}

/// The most that a measure may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub measure: Measure,
    pub most: f64,
}

/// Limits that must all be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget(Vec<Limit>);

impl Budget {
    pub fn limits(&self) -> &[Limit] {
        &self.0
    }

    /// Whether a limit is on classes, which a network of one number has none of.
    pub fn of_classes(&self) -> Option<&Limit> {
        let euclidean = |m: Measure| matches!(m, Measure::Distance(Distance::Euclidean, _));
        self.0.iter().find(|l| !euclidean(l.measure))
    }
}

const FORM: &str = "wanted limits as 'kl<=0.01,flips<=0.5%': kl, euclidean, bhattacharyya or hellinger (their mean, or \
                    with .median, .p90, .p99 or .max), or flips; then <= and a number from 0 up";

impl FromStr for Limit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("'{}': {why}; {FORM}", text.trim());
        let (name, value) = text.split_once("<=").ok_or_else(|| wrong("no <= in it"))?;
        let name = name.trim().to_lowercase();
        let (kind, which) = name.split_once('.').unwrap_or((&name, "mean"));
        let distance = match kind {
            "kl" => Some(Distance::Kl),
            "euclidean" => Some(Distance::Euclidean),
            "bhattacharyya" => Some(Distance::Bhattacharyya),
            "hellinger" => Some(Distance::Hellinger),
            "flips" => None,
            _ => return Err(wrong(&format!("'{kind}' is no measure of drift"))),
        };
        let of = [Of::Mean, Of::Median, Of::P90, Of::P99, Of::Max].into_iter().find(|of| of.as_str() == which);
        let measure = match (distance, of) {
            (Some(kind), Some(of)) => Measure::Distance(kind, of),
            (None, _) if name == "flips" => Measure::Flips,
            _ => return Err(wrong(&format!("'{name}' is no measure of drift"))),
        };
        let value = value.trim();
        let (digits, unit) = value.strip_suffix('%').map_or((value, 1.0), |d| (d.trim_end(), 100.0));
        if unit != 1.0 && measure != Measure::Flips {
            return Err(wrong("a distance is no share"));
        }
        let most = digits.parse::<f64>().map_err(|_| wrong(&format!("'{value}' is no number")))? / unit;
        if !(most >= 0.0 && most.is_finite()) {
            return Err(wrong(&format!("'{value}' is no limit")));
        }
        if measure == Measure::Flips && most > 1.0 {
            return Err(wrong(&format!("'{value}' is more than all; write 0.5% or 0.005")));
        }
        Ok(Self { measure, most })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}<={}", self.measure, self.most)
    }
}

impl FromStr for Budget {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let limits: Vec<Limit> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        for (i, limit) in limits.iter().enumerate() {
            if limits[..i].iter().any(|l| l.measure == limit.measure) {
                return Err(format!("'{text}': two limits on {}; {FORM}", limit.measure));
            }
        }
        Ok(Self(limits))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let limits: Vec<String> = self.0.iter().map(Limit::to_string).collect();
        f.write_str(&limits.join(","))
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_parse_print_and_are_refused() {
        let budget: Budget = "kl<=0.01, flips <= 0.5%,Hellinger.p99<=2e-3".parse().unwrap();
        let most: Vec<f64> = budget.limits().iter().map(|l| l.most).collect();
        assert_eq!(most, [0.01, 0.005, 0.002]);
        assert_eq!(budget.limits()[2].measure, Measure::Distance(Distance::Hellinger, Of::P99));
        assert_eq!(budget.to_string().parse::<Budget>().unwrap(), budget, "{budget}");
        let wrong = [
            ("", "no <="),
            ("kl", "no <="),
            ("kl<0.1", "no <="),
            ("kl>=0.1", "no <="),
            ("kl<=", "no number"),
            ("kl<=many", "no number"),
            ("kl<=NaN", "no limit"),
            ("kl<=inf", "no limit"),
            ("kl<=-1", "no limit"),
            ("kl<=1%", "no share"),
            ("kl.p95<=1", "kl.p95"),
            ("flips.p90<=1%", "flips.p90"),
            ("flips<=2", "more than all"),
            ("accuracy<=1", "'accuracy'"),
            ("kl<=0.1,", "no <="),
            ("kl<=0.1,kl.mean<=0.2", "two limits on kl"),
        ];
        for (text, says) in wrong {
            let error = text.parse::<Budget>().unwrap_err();
            assert!(error.contains(says) && error.contains("wanted limits"), "{text}: {error}");
        }
    }
}
