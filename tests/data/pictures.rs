//! Images: the real sets where they are, written ones of every kind, damaged ones.
use super::*;
use fipk::data::Form;
use fipk::data::images::decode::decode;
use fipk::data::images::picture::Picture;
use fipk::data::images::resize::{Filter, resize};

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

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pictures").join(name)
}

/// The tensors of the golden: bytes with their shape.
fn tensors() -> impl Fn(&str) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(golden("pictures.safetensors")).unwrap();
    move |name: &str| {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }
}

/// [height, width, 3] or [height, width] of bytes.
fn picture((shape, bytes): (Vec<usize>, Vec<u8>)) -> Picture {
    let channels = shape.get(2).copied().unwrap_or(1);
    Picture::from_pixels(&bytes, channels, channels, (shape[0], shape[1]))
}

fn largest(got: &Picture, wanted: &Picture) -> u8 {
    assert_eq!((got.channels, got.size()), (wanted.channels, wanted.size()));
    got.bytes.iter().zip(&wanted.bytes).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn resizing_is_pils_to_the_bit() {
    let tensor = tensors();
    for size in ["down", "up", "mixed", "rows_first", "one_axis", "far_down", "from_one"] {
        let input = picture(tensor(&format!("resize.{size}.input")));
        for (number, filter) in ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"].iter().enumerate() {
            let wanted = picture(tensor(&format!("resize.{size}.{filter}")));
            let got = resize(input.clone(), wanted.size(), Filter::numbered(number as u64).unwrap());
            assert_eq!(largest(&got, &wanted), 0, "{size} {filter}");
        }
    }
}

#[test]
fn files_of_every_mode_are_what_pil_opens() {
    let tensor = tensors();
    let mut seen = 0;
    for entry in fs::read_dir(golden("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".json") || name.ends_with(".safetensors") {
            continue;
        }
        seen += 1;
        let got = decode(&fs::read(&path).unwrap(), &name);
        if name == "grey16.png" {
            let error = got.unwrap_err().to_string();
            assert!(error.contains("grey16.png: a PNG of 16-bit grey is not supported"), "{error}");
            continue;
        }
        let (got, wanted) = (got.unwrap(), picture(tensor(&format!("open.{name}"))));
        // JPEG leaves the rounding of its transforms to the decoder, and what lies between two samples of chroma.
        let allowed = if name.ends_with(".png") { 0 } else { 4 };
        assert!(largest(&got, &wanted) <= allowed, "{name}: {}", largest(&got, &wanted));
    }
    assert_eq!(seen, 16);
}

#[test]
fn processors_give_what_transformers_gives() {
    let tensor = tensors();
    for name in ["vit", "deit", "convnext"] {
        let json = fs::read_to_string(golden(&format!("{name}.json"))).unwrap();
        let preprocess = Preprocess::from_map(&serde_json::from_str(&json).unwrap(), name).unwrap();
        for size in ["down", "up"] {
            let folder = tempfile::tempdir().unwrap();
            let input = picture(tensor(&format!("resize.{size}.input")));
            for class in ["a", "b"] {
                fs::create_dir(folder.path().join(class)).unwrap();
                write_png(&folder.path().join(class).join("0.png"), &input);
            }
            let how = Reading { preprocess: preprocess.clone(), ..planes() };
            let data = load(&format!("images:{}", folder.path().display()), "train", &how).unwrap();
            let batch = data.batch(&[1], 1, 0).unwrap();
            let (shape, wanted) = tensor(&format!("process.{name}.{size}"));
            assert_eq!(batch.inputs[0].shape[1..], shape);
            let wanted = wanted.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            for (got, wanted) in real(&batch).iter().zip(wanted) {
                assert!((got - wanted).abs() <= 1e-6 * wanted.abs().max(1.0), "{name} {size}: {got} {wanted}");
            }
        }
    }
}

fn write_png(path: &Path, picture: &Picture) {
    let (height, width) = picture.size();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width as u32, height as u32);
    encoder.set_color(if picture.channels == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    let pixels: Vec<u8> = (0..height * width)
        .flat_map(|i| (0..picture.channels).map(move |c| picture.bytes[c * height * width + i]))
        .collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

/// What PIL gives for the first and the eighth image: sums of the three channels.
#[cfg(feature = "parquet")]
#[test]
fn real_images_are_those_that_pil_opens() {
    let (Some(ten), Some(hundred), Some(sample)) =
        (shared("data/cifar10"), shared("data/cifar100"), shared("data/imagenet1k_sample/images.parquet"))
    else {
        return;
    };
    let bytes = Preprocess { rescale: 1.0, ..Preprocess::default() };
    let how = Reading { preprocess: bytes, ..planes() };
    let sums = |spec: &str, split: &str| {
        let data = load(spec, split, &how).unwrap();
        let batch = data.batch(&[0, 7], 2, 0).unwrap();
        let plane: usize = batch.inputs[0].shape[2..].iter().product();
        let sum = |plane: &[f32]| plane.iter().map(|&byte| f64::from(byte)).sum::<f64>();
        let sums: Vec<f64> = real(&batch).chunks_exact(plane).map(sum).collect();
        (data.len(), classes(&*data)[..10].to_vec(), sums)
    };
    let ten = format!("cifar10:{}", ten.display());
    let wanted = vec![101829.0, 102081.0, 87969.0, 94570.0, 94266.0, 85914.0];
    assert_eq!(sums(&ten, "test"), (3000, vec![7, 4, 8, 8, 2, 4, 1, 4, 7, 1], wanted));
    let wanted = vec![150038.0, 143290.0, 94706.0, 86109.0, 69339.0, 56572.0];
    assert_eq!(sums(&ten, "train"), (5000, vec![6, 3, 3, 9, 6, 6, 8, 3, 6, 9], wanted));
    let hundred = format!("cifar100:{}", hundred.display());
    let wanted = vec![182153.0, 164912.0, 148328.0, 105729.0, 134973.0, 127931.0];
    assert_eq!(sums(&hundred, "test"), (1250, vec![83, 20, 22, 12, 52, 89, 49, 17, 59, 99], wanted));
    let data = load(&format!("{hundred}?task=1&limit=9"), "train", &how).unwrap();
    assert_eq!((data.len(), names(&*data)[83].as_str()), (9, "sweet_pepper"));
    let few = load(&format!("{hundred}?classes=whale,0-1"), "test", &how).unwrap();
    assert!(names(&*few) == ["whale", "apple", "aquarium_fish"] && classes(&*few).iter().all(|&class| class < 3));

    // JPEGs: this decoder and PIL's differ in chroma, by up to a quarter of a level on average over these pictures.
    let (count, labels, got) = sums(&format!("parquet:{}", sample.display()), "test");
    assert_eq!((count, labels), (300, vec![3, 6, 10, 13, 16, 20, 24, 30, 31, 32]));
    for (got, wanted) in got.iter().zip([4058677.0, 5583721.0, 7115291.0, 9218363.0, 8897550.0, 6211847.0]) {
        assert!((got - wanted).abs() <= 0.5 * 65536.0, "{got} {wanted}");
    }
    let named = load(&format!("parquet:{}?limit=3", sample.display()), "test", &how).unwrap();
    assert_eq!(names(&*named)[..2], ["tench", "goldfish"]);
}

#[test]
fn binary_cifar_is_read_with_and_without_gzip() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    let image = |label: &[u8], shade: u8| [label, &[shade; 1024][..], &[shade + 1; 1024], &[shade + 2; 1024]].concat();
    for i in 1..=5u8 {
        fs::write(inner.join(format!("data_batch_{i}.bin")), [image(&[i], 10 * i), image(&[0], 3)].concat()).unwrap();
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&image(&[9], 7)).unwrap();
    fs::write(inner.join("test_batch.bin.gz"), packed.finish().unwrap()).unwrap();
    let spec = format!("cifar10:{}", folder.path().display());
    let train = load(&spec, "train", &planes()).unwrap();
    assert_eq!(classes(&*train), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let batch = train.batch(&[2], 1, 0).unwrap();
    assert_eq!([0, 1024, 2048].map(|i| real(&batch)[i] * 255.0), [20.0, 21.0, 22.0]);
    assert_eq!(classes(&*load(&spec, "test", &planes()).unwrap()), [9]);
    let some = load(&format!("{spec}?classes=ship,0"), "train", &planes());
    assert_eq!(classes(&*some.unwrap()), [1; 5]);

    fs::remove_file(inner.join("data_batch_3.bin")).unwrap();
    fails(&spec, "train", &planes(), &["data_batch_1.bin to data_batch_5.bin", "got 4"]);
    fs::write(inner.join("data_batch_3.bin"), [image(&[0], 1), image(&[10], 1)].concat()).unwrap();
    fails(&spec, "train", &planes(), &["data_batch_3.bin: row 2", "label 10 is not one of 0..=9"]);
    fs::write(inner.join("data_batch_3.bin"), [1; 3072]).unwrap();
    fails(&spec, "train", &planes(), &["data_batch_3.bin", "3073 bytes each", "3072"]);
    fails(&format!("{spec}?split=dev"), "train", &planes(), &["split dev", "test_batch.bin", "?split="]);
    fails(&format!("{spec}?label=fine"), "train", &planes(), &["one kind of label"]);

    fs::write(folder.path().join("test.bin"), [image(&[4, 99], 1), image(&[19, 0], 2)].concat()).unwrap();
    let spec = format!("cifar100:{}", folder.path().display());
    assert_eq!(classes(&*load(&spec, "test", &planes()).unwrap()), [99, 0]);
    let coarse = load(&format!("{spec}?label=coarse"), "test", &planes()).unwrap();
    assert_eq!((classes(&*coarse), names(&*coarse).len()), (vec![4, 19], 20));
    fails(&format!("{spec}?task=1"), "test", &planes(), &["no tasks", "?classes=0-9"]);
    let nine = Reading { labels: Some(data::labels::unnamed(9)), ..planes() };
    fails(&spec, "test", &nine, &["100 classes", "9 outputs"]);
    let one = Reading { form: Form::Planes { channels: 1 }, ..Reading::default() };
    let says = ["test.bin: row 1", "wanted images of 1 channel (grey)", "got 3 (red, green, blue)", "num_channels"];
    fails(&spec, "test", &one, &says);
    let four = Reading { form: Form::Planes { channels: 4 }, ..Reading::default() };
    fails(&spec, "test", &four, &["wanted images of 4 channels", "got 1 or 3", "num_channels"]);
    let grey = Preprocess { mean: vec![0.5], std: vec![0.5], ..Preprocess::default() };
    let grey = Reading { preprocess: grey, ..planes() };
    fails(&spec, "test", &grey, &["the images' 3 channels, got image_mean and image_std of 1", "fipk data --json"]);
}

#[test]
fn a_crop_leaves_a_part_of_the_image() {
    let how = Reading { form: Form::Planes { channels: 1 }, ..Reading::default() };
    assert!(load("digits:3?augment=flip,crop:27", "train", &how).is_ok());
    let error = fails("digits:3?augment=flip,crop:28", "train", &how, &["augment=crop:28", "28x28", "at most crop:27"]);
    assert_eq!(error.exit_code(), 2);
    // By the size that the network sees.
    let size: Preprocess =
        Preprocess::from_map(&serde_json::from_str(r#"{"size": {"height": 9, "width": 5}}"#).unwrap(), "f").unwrap();
    let how = Reading { preprocess: size, ..how };
    assert!(load("digits:3?augment=crop:4", "train", &how).is_ok());
    fails("digits:3?augment=crop:5", "train", &how, &["9x5", "at most crop:4"]);
}

#[test]
fn folders_of_splits_are_no_classes() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_png(&path, &shades(4, 5, 3));
    };
    let spec = format!("images:{}", folder.path().display());
    put("test/cat/1.png");
    put("test/dog/1.png");
    put("val/cat/1.png");
    fails(&spec, "train", &planes(), &["wanted a folder for split train, got test, val", "?split=test"]);
    assert_eq!(load(&format!("{spec}?split=test"), "train", &planes()).unwrap().len(), 2);
    assert_eq!(names(&*load(&format!("{spec}?split=dev"), "train", &planes()).unwrap()), ["cat"]);
    put("Training/cat/1.png");
    fails(&spec, "train", &planes(), &["Training, test, val", "?split=Training"]);
    assert_eq!(load(&format!("{spec}?split=Training"), "train", &planes()).unwrap().len(), 1);
    put("Train/cat/1.png");
    put("Train/cat/2.png");
    assert_eq!(load(&spec, "train", &planes()).unwrap().len(), 2);
    fails(&format!("{spec}?split=extra"), "train", &planes(), &["split extra, got Train, Training, test, val"]);

    // Vehicles are trains, not training images.
    let folder = tempfile::tempdir().unwrap();
    for class in ["train", "plane", "test"] {
        fs::create_dir(folder.path().join(class)).unwrap();
        write_png(&folder.path().join(class).join("1.png"), &shades(4, 5, 3));
    }
    let spec = format!("images:{}", folder.path().display());
    assert_eq!(names(&*load(&spec, "train", &planes()).unwrap()), ["plane", "test", "train"]);
    fails(&format!("{spec}?split=dev"), "train", &planes(), &["split dev, got none", "leave ?split= out"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (root, far) = (folder.path().join("data"), folder.path().join("far"));
    for path in [root.join("cat"), root.join("dog"), far.clone()] {
        fs::create_dir_all(&path).unwrap();
        write_png(&path.join("1.png"), &shades(4, 5, 3));
    }
    let spec = format!("images:{}", root.display());
    symlink(&far, root.join("cat/more")).unwrap();
    symlink(&far, root.join("dog/more")).unwrap();
    assert_eq!(classes(&*load(&spec, "train", &planes()).unwrap()), [0, 0, 1, 1]);
    // To itself, to what holds it, and by way of another folder.
    for (link, to) in [("cat/self", root.join("cat")), ("dog/up", root.clone()), ("../far/back", root.join("cat"))] {
        symlink(&to, root.join(link)).unwrap();
        let error = fails(&spec, "train", &planes(), &["is a link to", "which it lies in", "remove the link"]);
        assert!(error.to_string().contains(link.rsplit('/').next().unwrap()), "{error}");
        fs::remove_file(root.join(link)).unwrap();
    }
    assert_eq!(load(&spec, "train", &planes()).unwrap().len(), 4);
}

fn shades(height: usize, width: usize, channels: usize) -> Picture {
    Picture { channels, height, width, bytes: (0..height * width * channels).map(|i| (i * 7) as u8).collect() }
}

#[test]
fn folders_are_classes() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, picture: &Picture| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_png(&path, picture);
    };
    put("train/cat/2.png", &shades(4, 5, 3));
    put("train/cat/10.PNG", &shades(4, 5, 1));
    put("train/ant/deep/1.png", &shades(4, 5, 3));
    fs::write(folder.path().join("train/cat/notes.txt"), "x").unwrap();
    fs::write(folder.path().join("train/.hidden"), "x").unwrap();
    put("val/cat/1.png", &shades(4, 5, 3));
    let spec = format!("images:{}", folder.path().display());
    let bytes = Reading { preprocess: Preprocess { rescale: 1.0, ..Preprocess::default() }, ..planes() };
    let data = load(&spec, "train", &bytes).unwrap();
    assert_eq!((names(&*data), classes(&*data)), (vec!["ant".into(), "cat".into()], vec![0, 1, 1]));
    let batch = data.batch(&[1, 2], 2, 0).unwrap();
    assert_eq!(batch.inputs[0].shape, [2, 3, 4, 5]);
    // The grey image has three equal planes.
    let grey: Vec<f32> = (0..20).map(|i| f32::from((i * 7) as u8)).collect();
    assert_eq!(real(&batch)[..60], [grey.clone(), grey.clone(), grey].concat());
    let model = Reading { labels: Some(vec!["dog".into(), "cat".into(), "ant".into()]), ..planes() };
    assert_eq!(classes(&*load(&spec, "test", &model).unwrap()), [1]);
    fails(&format!("{spec}?split=extra"), "train", &planes(), &["a folder for split extra"]);
    fails(&format!("{spec}?classes=dog"), "train", &planes(), &["`dog` is none of 0..=1", "ant, cat"]);
    // One split by itself.
    let inside = load(&format!("images:{}/train", folder.path().display()), "test", &bytes).unwrap();
    assert_eq!(inside.fingerprint(), data.fingerprint());

    // Too many to be kept decoded: the same batches, and what is damaged later is an error then.
    let stored = load(&spec, "train", &Reading { hold: 0, ..bytes.clone() }).unwrap();
    assert_eq!(stored.batch(&[2, 0], 3, 0).unwrap(), data.batch(&[2, 0], 3, 0).unwrap());
    assert_ne!(stored.fingerprint(), "");
    fs::write(folder.path().join("train/cat/2.png"), b"").unwrap();
    let gone = Batches::in_order(&*stored, 2).unwrap().collect::<fipk::Result<Vec<Batch>>>().unwrap_err().to_string();
    assert!(gone.contains("cat/2.png") && gone.contains("got nothing"), "{gone}");
    put("train/cat/2.png", &shades(4, 5, 3));

    put("train/cat/3.png", &shades(5, 5, 3));
    fails(&spec, "train", &planes(), &["cat/3.png", "4x5 as the first", "got 5x5", "do_resize"]);
    fs::write(folder.path().join("train/cat/3.png"), b"GIF89a").unwrap();
    fails(&spec, "train", &planes(), &["cat/3.png", "got a GIF"]);
    let whole = fs::read(golden("rgb.png")).unwrap();
    fs::write(folder.path().join("train/cat/3.png"), &whole[..whole.len() - 20]).unwrap();
    fails(&spec, "train", &planes(), &["cat/3.png", "PNG", "cut short or damaged"]);
    let whole = fs::read(golden("half_chroma.jpg")).unwrap();
    fs::write(folder.path().join("train/cat/3.png"), &whole[..whole.len() / 2]).unwrap();
    fails(&spec, "train", &planes(), &["cat/3.png", "JPEG", "no end"]);
    fs::remove_file(folder.path().join("train/cat/3.png")).unwrap();
    fs::create_dir(folder.path().join("train/empty")).unwrap();
    fails(&spec, "train", &planes(), &["empty", "got none"]);
}

#[test]
fn a_bomb_is_refused_before_it_goes_off() {
    // 60000 x 60000 in a file of 57 bytes.
    let mut head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    let mut crc = flate2::Crc::new();
    crc.update(&head[12..]);
    head.extend(crc.sum().to_be_bytes());
    let error = decode(&head, &"bomb.png").unwrap_err().to_string();
    assert!(error.contains("bomb.png: wanted an image of 1 to") && error.contains("60000x60000"), "{error}");
}

#[test]
fn augmentation_is_a_function_of_seed_epoch_and_example() {
    let spec = "digits:40?augment=flip,crop:3";
    let data = load(spec, "train", &planes()).unwrap();
    let plain = load("digits:40", "train", &planes()).unwrap();
    assert!(data.changes_with_epoch() && !plain.changes_with_epoch());
    assert_ne!(data.fingerprint(), plain.fingerprint());
    let all: Vec<usize> = (0..40).collect();
    let whole = data.batch(&all, 40, 3).unwrap();
    assert_eq!(
        data.batch(&[7], 1, 3).unwrap().inputs[0].values,
        Values::Real(real(&whole)[7 * 2352..8 * 2352].to_vec())
    );
    assert_ne!(data.batch(&all, 40, 4).unwrap(), whole);
    assert_ne!(load(&format!("{spec}&seed=0"), "train", &Reading { seed: 5, ..planes() }).unwrap().fingerprint(), "");
    let other = load(spec, "train", &Reading { seed: 5, ..planes() }).unwrap();
    assert_ne!(other.batch(&all, 40, 3).unwrap(), whole);
    // To measure, images are as they are.
    assert_eq!(data.batch(&all, 40, EVALUATION).unwrap(), plain.batch(&all, 40, EVALUATION).unwrap());
    assert_eq!(plain.batch(&all, 40, 3).unwrap(), plain.batch(&all, 40, 4).unwrap());
}
