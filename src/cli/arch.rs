//! Networks from scratch by their names: what `fipk train --arch` takes besides a config.json.
use crate::models::config::RawConfig;
use crate::{Error, Result};
use serde_json::{Value, json};

/// Names, as their sources have them: LeCun's, He's for CIFAR (akamaster's parameters), torchvision's.
const NAMES: [&str; 8] =
    ["lenet-300-100", "lenet5", "resnet20", "resnet32", "resnet44", "resnet56", "vgg16", "vgg16_bn"];

/// The `config.json` of a name, or of `mlp:` and the widths from input to output.
///
/// # Errors
/// [`Error::Usage`] with all names for another one.
pub fn describe(arch: &str) -> Result<RawConfig> {
    let wrong = || {
        let hint = format!(
            "write {}, the widths from input to output as mlp:784,300,100,10, or a config.json",
            NAMES.join(", ")
        );
        Error::usage(
            "--arch",
            format!("'{arch}' is neither a file nor an architecture that is trained from scratch"),
            hint,
        )
    };
    let raw = match arch {
        "lenet-300-100" => mlp("784,300,100,10"),
        "lenet5" => Some(json!({ "model_type": "lenet5" })),
        "vgg16" | "vgg16_bn" => Some(json!({ "model_type": "vgg", "depth": 16, "batch_norm": arch == "vgg16_bn" })),
        name if NAMES.contains(&name) => {
            let depth: Option<u64> = name.strip_prefix("resnet").and_then(|depth| depth.parse().ok());
            depth.map(|depth| json!({ "model_type": "resnet_cifar", "depth": depth }))
        }
        other => other.strip_prefix("mlp:").and_then(mlp),
    };
    raw.as_ref().and_then(Value::as_object).cloned().ok_or_else(wrong)
}

fn mlp(widths: &str) -> Option<Value> {
    let sizes: Vec<usize> = widths.split(',').map(|w| w.trim().parse().ok()).collect::<Option<_>>()?;
    let layers: Vec<String> = (1..sizes.len()).map(|i| format!("fc{i}")).collect();
    (sizes.len() > 1).then(|| json!({ "model_type": "mlp", "sizes": sizes, "layers": layers, "hidden_act": "relu" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Config, Head, Network};

    #[test]
    fn architectures_are_names_or_widths() {
        assert_eq!(describe("lenet-300-100").unwrap()["sizes"], json!([784, 300, 100, 10]));
        assert_eq!(describe("mlp:4, 2").unwrap()["layers"], json!(["fc1"]));
        for arch in ["lenet-5", "mlp:", "mlp:4", "mlp:4,x", "resnet21", "resnet110", "vgg"] {
            let error = describe(arch).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arch}");
            assert!(NAMES.iter().all(|name| error.to_string().contains(name)), "{error}");
        }
    }

    /// Parameters with ten classes: as the papers and torchvision count them; akamaster's lists 0.27, 0.46, 0.66, 0.85 M.
    #[test]
    fn named_networks_have_the_sizes_of_their_sources() {
        let count = |arch: &str, labels: usize| {
            let raw = describe(arch).unwrap();
            let head = Head::Classification { labels };
            let config = Config::from_raw("c", &raw).unwrap();
            let raw = head.describe(&config, &raw, &[]);
            let params = Network::new(Config::from_raw("c", &raw).unwrap(), head).unwrap().params().unwrap();
            let trained = params.iter().filter(|p| p.kind != crate::graph::Kind::Statistic);
            trained.map(|p| p.shape.iter().product::<usize>()).sum::<usize>()
        };
        assert_eq!(count("lenet-300-100", 10), 266_610);
        assert_eq!(count("lenet5", 10), 61_706);
        let resnets = ["resnet20", "resnet32", "resnet44", "resnet56"].map(|arch| count(arch, 10));
        assert_eq!(resnets, [269_722, 464_154, 658_586, 853_018]);
        assert_eq!((count("vgg16", 1000), count("vgg16_bn", 1000)), (138_357_544, 138_365_992));
    }
}
