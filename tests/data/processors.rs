//! Written `preprocessor_config.json` files, read by `transformers`.
use super::*;
use fipk::data::Form;
use serde_json::{Value, json};
use std::process::Command;

/// Prints what the processor of a folder is, and what it makes of a picture.
const PROCESS: &str = r#"
import sys, json, numpy, PIL.Image
from transformers import AutoImageProcessor
for folder in sys.argv[2:]:
    processor = AutoImageProcessor.from_pretrained(folder)
    values = numpy.asarray(processor(images=PIL.Image.open(sys.argv[1]), return_tensors="np")["pixel_values"])[0]
    print(json.dumps([type(processor).__name__, list(values.shape), values.ravel().tolist()]))
"#;

/// What the Python that has `transformers` (`FIPK_PYTHON`, else `python3`) prints; `None` where there is none.
fn python(args: &[PathBuf]) -> Option<Vec<Value>> {
    let python = std::env::var("FIPK_PYTHON").unwrap_or("python3".into());
    let run = |script: &str| Command::new(&python).arg("-c").arg(script).args(args).output();
    if !run("import transformers, PIL").is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: {python} has no transformers and PIL (set FIPK_PYTHON)");
        return None;
    }
    let output = run(PROCESS).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

#[test]
fn transformers_loads_the_processor_and_it_does_the_same() {
    let image = pictures::golden("rgb.png");
    let norm = json!({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]});
    let cases = [
        ("vit", json!({"size": {"height": 12, "width": 9}, "resample": 2}), "ViTImageProcessor"),
        ("plain", json!({}), "ViTImageProcessor"),
        ("deit", json!({"size": 12, "resample": 3, "crop_size": {"height": 10, "width": 8}}), "DeiTImageProcessor"),
        ("resnet", json!({"size": {"shortest_edge": 14}, "crop_pct": 0.875, "resample": 3}), "BitImageProcessor"),
    ];
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    for class in ["a", "b"] {
        fs::create_dir(dir.path().join("images").join(class)).unwrap();
        fs::copy(&image, dir.path().join("images").join(class).join("0.png")).unwrap();
    }
    let (mut args, mut wanted) = (vec![image], Vec::new());
    for (name, config, class) in cases {
        let mut map = config.as_object().unwrap().clone();
        map.extend(norm.as_object().unwrap().clone());
        let preprocess = Preprocess::from_map(&map, name).unwrap();
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        // Of a network that `transformers` does not know.
        fs::write(folder.join("config.json"), json!({"model_type": "resnet_cifar", "depth": 20}).to_string()).unwrap();
        fs::write(folder.join("preprocessor_config.json"), Value::Object(preprocess.to_map()).to_string()).unwrap();
        let how = Reading { preprocess, form: Form::Planes { channels: 3 }, ..Reading::default() };
        let data = load(&format!("images:{}", dir.path().join("images").display()), "train", &how).unwrap();
        let batch = data.batch(&[0], 1, 0).unwrap();
        wanted.push((name, class, batch.inputs[0].shape[1..].to_vec(), real(&batch).to_vec()));
        args.push(folder);
    }
    let Some(found) = python(&args) else { return };
    assert_eq!(found.len(), wanted.len());
    for (got, (name, class, shape, values)) in found.iter().zip(wanted) {
        assert!(got[0].as_str().unwrap().starts_with(class), "{name}: {}", got[0]);
        assert_eq!(got[1], json!(shape), "{name}");
        for (got, value) in got[2].as_array().unwrap().iter().zip(&values) {
            let got = got.as_f64().unwrap();
            assert!((got - f64::from(*value)).abs() <= 1e-5, "{name}: {got} {value}");
        }
    }
}
