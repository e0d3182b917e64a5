//! The geometry's verbs on a small network: what they say agrees with itself and with what they store.
use super::support::{done, fails, text, tiny};
use fipk::fip::path::Stored;
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&done(args).stdout).unwrap()
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or(f64::NAN)
}

#[test]
fn the_spectrum_is_the_same_by_lanczos_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let (out, data) = (dir.path().join("metric"), "digits:12?seed=3");
    let base = ["metric", "--model", text(&model), "--data", data, "--device", "cpu", "--json"];
    let whole = json(&[&base[..], &["--exact", "--top", "5"]].concat());
    let top = json(&[&base[..], &["--top", "5", "--density", "--vectors", "--out", text(&out)]].concat());
    let exact: Vec<f64> = whole["exact"].as_array().unwrap().iter().map(number).collect();
    assert_eq!(exact.len(), 120);
    for i in 0..5 {
        let value = number(&top["largest"][i]["value"]);
        assert!((value - exact[i]).abs() <= 1e-4 * exact[0], "{i}: {value} {}", exact[i]);
    }
    let sum: f64 = exact.iter().sum();
    assert!((number(&whole["trace"]) - sum).abs() <= 1e-9 * sum);
    let above = exact.iter().filter(|v| **v >= 1e-3).count() as f64;
    let weights = number(&whole["weights"]);
    assert_eq!(number(&whole["invariant"]["dimensions"]), weights - above);
    for file in ["config.toml", "metric.json", "spectrum.svg", "density.svg", "eigenvector-05.safetensors"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let again = [&base[..], &["--top", "1", "--out", text(&out)]].concat();
    fails(&again, 2, &["--overwrite"]);
    done(&[&again[..], &["--overwrite"]].concat());
    fails(&["metric", "--model", text(&model), "--data", "digits:600", "--exact"], 2, &["--exact", "6000 rows", "409"]);
    fails(&["metric", "--model", text(&model), "--data", data, "--epsilon", "0"], 2, &["--epsilon"]);
}

#[test]
fn a_geodesic_keeps_its_speed_and_its_networks() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(dir.path());
    let out = dir.path().join("walk");
    let args = ["geodesic", "--model", text(&model), "--data", "digits:6?seed=3", "--device", "cpu", "--json"];
    let found =
        json(&[&args[..], &["--length", "0.05", "--points", "2", "--damping", "1e-3", "--out", text(&out)]].concat());
    let walks = found["found"]["walks"].as_array().unwrap();
    let change = |i: usize| number(&walks[i]["speed_change"]);
    assert!(change(0) <= 0.01 && change(0) < change(1), "{} and {}", change(0), change(1));
    for (walk, name) in walks.iter().zip(["geodesic", "line", "null"]) {
        let stored = Stored::open(&out.join(name)).unwrap();
        assert_eq!((stored.points().len(), walk["name"].as_str()), (3, Some(name)));
        let networks: Vec<Vec<f32>> = (0..3).map(|i| stored.network(i).unwrap()).collect();
        let apart = |i: usize, j: usize| {
            let squares = networks[i].iter().zip(&networks[j]).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let length = apart(0, 1) + apart(1, 2);
        assert!((length - number(&walk["length"])).abs() <= 1e-9 * length, "{name}: {length}");
        let away = apart(0, 2);
        let said = number(&walk["looks"][2]["from_start"]);
        assert!((away - said).abs() <= 1e-4 * said, "{name}: {away} {said}");
    }
    let folders: Vec<String> = ["geodesic", "line", "null"].map(|n| out.join(n).display().to_string()).into();
    let all: Vec<&str> = folders.iter().map(String::as_str).collect();
    let (svg, moved) = (dir.path().join("pca.svg"), dir.path().join("moved"));
    let lengths = json(&[&["path", "length", "--json"][..], &all].concat());
    let (line, said) = (number(&lengths[1]["length"]), number(&walks[1]["length"]));
    assert!((line - said).abs() <= 1e-12 * said, "{line} {said}");
    let seen = json(&[&["path", "pca", "--json", "--out", text(&svg)][..], &all].concat());
    assert!(svg.is_file() && seen["coordinates"][2]["networks"].as_array().unwrap().len() == 3);
    let shown = json(&["path", "show", all[0], "--json"]);
    assert_eq!((&shown["points"][0]["operation"], number(&shown["points"][2]["time"])), (&"start".into(), 1.0));
    // The first network is the model; the last one drifts by what the walk says.
    done(&["path", "export", all[1], "--point", "0", "--out", text(&moved)]);
    let drift = json(&["drift", text(&model), text(&moved), "--data", "digits:6?seed=3", "--json"]);
    assert_eq!(number(&drift["distances"]["euclidean"]["mean"]), 0.0);
    done(&["path", "export", all[1], "--point", "2", "--out", text(&moved), "--overwrite"]);
    let drift = json(&["drift", text(&model), text(&moved), "--data", "digits:6?seed=3", "--json"]);
    // The distance is half a square.
    let (said, measured) = (number(&walks[1]["looks"][2]["drift"]), number(&drift["distances"]["euclidean"]["mean"]));
    assert!(((2.0 * measured).sqrt() - said).abs() <= 1e-4 * said, "{said} {measured}");
    fails(&["path", "export", all[0], "--point", "3", "--out", text(&dir.path().join("x"))], 2, &["--point", "3"]);
    fails(&["path", "show", text(&model)], 4, &["path.json", "path"]);
    fails(&[&args[..], &["--length", "0", "--out", text(&out)]].concat(), 2, &["--length"]);
}
