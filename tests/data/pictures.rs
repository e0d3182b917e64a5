//! Images: the real sets where they are, written ones of every kind, damaged ones.
use super::*;
use fipk::data::Form;

fn planes() -> Reading {
    Reading { form: Form::Planes { channels: 3 }, ..Reading::default() }
}

/// Labels and pixels as PIL reads them from the same files.
#[cfg(feature = "parquet")]
#[test]
fn cifar10_is_read_as_pil_reads_it() {
    let Some(folder) = shared("data/cifar10") else { return };
    let spec = format!("cifar10:{}", folder.display());
    let test = load(&spec, "test", &planes()).unwrap();
    assert_eq!((test.len(), names(&*test)[..3].join(" ")), (3000, "airplane automobile bird".to_string()));
    let labels = classes(&*test);
    assert!((0..10).all(|class| labels.iter().filter(|&&label| label == class).count() == 300));
    let batch = test.batch(&[0, 7], 3, 0).unwrap();
    assert_eq!(batch.inputs[0].shape, [3, 3, 32, 32]);
    let flat = load(&format!("{spec}?limit=8"), "test", &Reading::default()).unwrap().batch(&[0, 7], 3, 0).unwrap();
    assert_eq!((flat.inputs[0].shape.as_slice(), real(&flat)), (&[3, 3072][..], real(&batch)));
}
