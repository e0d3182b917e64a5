//! `fipk selftest` and `fipk bench kernels`: what they print, and what they refuse.
use super::support::{done, fails};
use serde_json::Value;

#[test]
fn bench_kernels_times_the_host_against_its_yardsticks() {
    let args =
        ["bench", "kernels", "--device", "cpu", "--shape", "tiny", "--parameters", "100000", "--seconds", "0.001"];
    let result: Value = serde_json::from_str(&done(&[&args[..], &["--json"]].concat()).stdout).unwrap();
    let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    assert!(result["device"].as_str().is_some_and(|d| d.starts_with("cpu")), "{result}");
    assert!(number(&result["yardsticks"]["copy_gb_s"]) > 0.0 && result["yardsticks"]["products"].is_array());
    let rows = result["rows"].as_array().unwrap();
    for row in rows {
        let [us, fastest, slowest] = ["us", "fastest_us", "slowest_us"].map(|k| number(&row[k]));
        assert!(0.0 < fastest && fastest <= us && us <= slowest, "{row}");
        assert!(number(&row["gb_s"]) > 0.0 && number(&row["of_copy"]) > 0.0, "{row}");
    }
    let names: Vec<&str> = rows.iter().filter_map(|r| r["name"].as_str()).collect();
    for name in ["linear_vjp", "attention_jvp", "kl_forward", "flat_dot", "select_2:4", "update_adamw_gradient_counted"]
    {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let linear = rows.iter().find(|r| r["name"] == "linear_forward").unwrap();
    assert!(number(&linear["of_matmul"]) > 0.0, "{linear}");

    let table = done(&[&args[..], &["--filter", "layer_norm_*"]].concat()).stdout;
    assert!(table.contains("layer_norm_vjp") && table.contains("% copy") && !table.contains("linear_vjp"), "{table}");
    let shape = ["bench", "kernels", "--device", "cpu", "--shape", "tiny-convolutions", "--parameters", "0"];
    let result: Value =
        serde_json::from_str(&done(&[&shape[..], &["--seconds", "0.001", "--json"]].concat()).stdout).unwrap();
    let of = |name: &str| result["rows"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
    for name in ["conv2d_vjp", "batch_norm_jvp", "channel_variance_forward", "average_pool_vjp"] {
        assert!(of(name).is_some_and(|row| number(&row["us"]) > 0.0), "{name} is not in {result}");
    }
    // 2 x 4 x 8 x 8 outputs of 27 products each.
    let row = of("conv2d_forward").unwrap();
    assert_eq!(row["shape"], "tiny 2x3x8x8: 2x3x8x8 4x3x3x3");
    let flops = number(&row["tflop_s"]) * number(&row["us"]) * 1e6;
    assert!((flops - 2.0 * 512.0 * 27.0).abs() <= 1e-6 * flops, "{row}");
    fails(&["bench", "kernels", "--device", "cpu", "--filter", "[", "--shape", "tiny"], 2, &["--filter"]);
    fails(&["bench", "kernels", "--device", "cpu", "--seconds", "0"], 2, &["--seconds"]);
}

#[test]
fn selftest_wants_a_device() {
    fails(&["selftest", "--device", "cpu"], 2, &["the CPU runs no kernels", "--device cuda:N"]);
    let help = done(&["selftest", "--help"]).stdout;
    assert!(help.contains("--filter") && help.contains("tolerance"), "{help}");
    assert_eq!(help.contains("--emulated\n"), cfg!(feature = "emulator"), "{help}");
}

#[cfg(feature = "emulator")]
#[test]
fn selftest_runs_emulated() {
    let text = done(&["selftest", "--emulated", "--filter", "add_[fjv]*", "--seed", "5"]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    let (last, rows) = lines.split_last().unwrap();
    let (heading, rows) = rows.split_first().unwrap();
    assert!(heading.starts_with("check") && heading.contains("allowed"), "{text}");
    assert!(last.contains(&format!("{} rows, 0 failed", rows.len())), "{text}");
    assert!(rows.iter().all(|r| r.starts_with("add_") && r.ends_with("  ok")), "{text}");
    assert!(rows.iter().any(|r| r.contains("bf16") && r.contains("131x257")), "{text}");

    let text = done(&["selftest", "--emulated", "--filter", "record_*", "--json"]).stdout;
    let values: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((values[0]["name"].as_str(), values[0]["ok"].as_bool()), (Some("record_replay"), Some(true)));
    assert_eq!(values[1]["summary"]["failed"], 0);
    fails(&["selftest", "--emulated", "--filter", "no_such_row"], 2, &["names no row"]);
}
