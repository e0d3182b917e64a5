//! PNG and JPEG files to pictures, as PIL opens them, turns them upright by EXIF and converts them to `L` or `RGB`.
//!
//! Grey stays grey; everything else becomes RGB: palettes are looked up, alpha is dropped and not blended, of 16-bit
//! colours the high byte is kept, CMYK is converted. PIL turns 16-bit *grey* into white wherever it is above 255;
//! that is refused here. A JPEG's numbers may differ from libjpeg's by a few units, for no two decoders agree on them; over
//! a picture by up to 0.25 on average (tests/data/pictures.rs).
use std::fmt::Display;
use std::io::Cursor;

use png::{BitDepth, ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::picture::Picture;
use crate::{Error, Result};

/// Pixels above which PIL suspects a decompression bomb.
pub const MOST_PIXELS: usize = 89_478_485;

/// The picture in `bytes`, which begin as a PNG or a JPEG file does; `place` names them in errors.
///
/// # Errors
/// [`Error::Data`] for bytes that are neither, cut short or damaged, or a picture of no or of far too many pixels;
/// [`Error::Unsupported`] for 16-bit grey.
pub fn decode(bytes: &[u8], place: &dyn Display) -> Result<Picture> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return png(bytes, place);
    }
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return jpeg(bytes, place);
    }
    let what = match bytes {
        [] => "nothing".to_string(),
        [b'G', b'I', b'F', ..] => "a GIF".to_string(),
        [b'R', b'I', b'F', b'F', ..] => "a WebP".to_string(),
        [b'B', b'M', ..] => "a BMP".to_string(),
        _ => format!("{} other bytes", bytes.len()),
    };
    Err(Error::data(place.to_string(), format!("wanted a PNG or a JPEG, got {what}"), "convert it to PNG"))
}

fn damaged(place: &dyn Display, format: &str, cause: &dyn Display) -> Error {
    let what = format!("wanted a whole {format}, got one cut short or damaged ({cause})");
    Error::data(place.to_string(), what, "fetch it again, or leave it out")
}

fn check_size(place: &dyn Display, (height, width): (usize, usize)) -> Result<()> {
    match height.checked_mul(width) {
        Some(1..=MOST_PIXELS) => Ok(()),
        _ => {
            let what = format!("wanted an image of 1 to {MOST_PIXELS} pixels, got {height}x{width}");
            Err(Error::data(place.to_string(), what, "make it smaller, or leave it out"))
        }
    }
}

fn png(bytes: &[u8], place: &dyn Display) -> Result<Picture> {
    let broken = |cause: png::DecodingError| damaged(place, "PNG", &cause);
    // Room for the largest picture there may be, at most four samples of two bytes a pixel.
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 8 * MOST_PIXELS });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let info = decoder.read_header_info().map_err(broken)?;
    let size = (info.height as usize, info.width as usize);
    check_size(place, size)?;
    if (info.color_type, info.bit_depth) == (ColorType::Grayscale, BitDepth::Sixteen) {
        return Err(Error::unsupported(place.to_string(), "a PNG of 16-bit grey", "convert it to 8 bits"));
    }
    let mut reader = decoder.read_info().map_err(broken)?;
    let samples = reader.output_color_type().0.samples();
    let mut pixels = vec![0; samples * size.0 * size.1];
    reader.next_frame(&mut pixels).map_err(broken)?;
    // Orientation may stand behind the image data.
    reader.finish().map_err(broken)?;
    let upright = reader.info().exif_metadata.as_deref().map_or(1, orientation);
    Ok(Picture::from_pixels(&pixels, samples, if samples < 3 { 1 } else { 3 }, size).upright(upright))
}

fn jpeg(bytes: &[u8], place: &dyn Display) -> Result<Picture> {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    // Within a scan every 0xff is followed by a zero or a restart marker, so an end of image after the last start of
    // scan is the real one. The decoder itself paints over what is missing.
    if last(0xd9) <= last(0xda) {
        return Err(damaged(place, "JPEG", &"it has no end"));
    }
    let broken =
        |cause: zune_jpeg::errors::DecodeErrors| damaged(place, "JPEG", &format!("{cause:?}").replace('\n', " "));
    let options = DecoderOptions::default().set_max_width(usize::from(u16::MAX)).set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let Some(info) = decoder.info() else { return Err(damaged(place, "JPEG", &"it has no header")) };
    let size = (usize::from(info.height), usize::from(info.width));
    check_size(place, size)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let channels = if grey { 1 } else { 3 };
    decoder.set_options(options.jpeg_set_out_colorspace(if grey { ColorSpace::Luma } else { ColorSpace::RGB }));
    let pixels = decoder.decode().map_err(broken)?;
    if pixels.len() != channels * size.0 * size.1 {
        return Err(damaged(place, "JPEG", &format!("{} bytes for {}x{} pixels", pixels.len(), size.0, size.1)));
    }
    let upright = decoder.exif().map_or(1, |exif| orientation(exif));
    Ok(Picture::from_pixels(&pixels, channels, channels, size).upright(upright))
}

/// Tag 0x0112 of the first directory of EXIF's TIFF structure; 1, which is upright, where there is none.
fn orientation(exif: &[u8]) -> u16 {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let find = || {
        let big = match tiff.get(..4)? {
            [b'M', b'M', 0, 42] => true,
            [b'I', b'I', 42, 0] => false,
            _ => return None,
        };
        let short = |at: usize| {
            let pair = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
        };
        let long = |at: usize| {
            let (a, b) = (usize::from(short(at)?), usize::from(short(at + 2)?));
            Some(if big { a << 16 | b } else { b << 16 | a })
        };
        let directory = long(4)?;
        let entries = (0..usize::from(short(directory)?)).map(|i| directory + 2 + 12 * i);
        entries.take_while(|&at| at < tiff.len()).find(|&at| short(at) == Some(0x0112)).and_then(|at| short(at + 8))
    };
    find().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_is_found_in_both_byte_orders() {
        let little = b"II\x2a\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x01\0\0\0a\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!((orientation(little), orientation(big)), (6, 8));
        for cut in 0..little.len() - 4 {
            assert_eq!(orientation(&little[..cut]), 1, "{cut}");
        }
        assert_eq!(orientation(b"MM\0\x2a\xff\xff\xff\xff"), 1);
    }
}
