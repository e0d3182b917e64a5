//! Numbers for people: percentages, counts, durations, and floats with the digits that matter.

/// A share in 0..1 with two decimals: `90.00 %`. A share below 1 never reads 100 %, one above 0 never 0 %.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "-".into();
    }
    let hundredths = share * 1e4;
    let shown = match share {
        s if 0.0 < s && s < 1.0 => hundredths.round().clamp(1.0, 9999.0),
        _ => hundredths.round(),
    };
    format!("{:.2} %", shown / 1e2)
}

/// A count with three significant digits: `999`, `1.23k`, `266k`, `110M`, `7.24G`.
pub fn count(n: u64) -> String {
    if n < 1000 {
        return n.to_string();
    }
    let mut scaled = n as f64;
    let mut unit = 0;
    // 999.5 would round up to four digits.
    while scaled >= 999.5 && unit < 5 {
        scaled /= 1e3;
        unit += 1;
    }
    let decimals = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.decimals$}{}", ["", "k", "M", "G", "T", "P"][unit])
}

/// A count in full, in groups of three: `1 234 567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Bytes with three significant digits: `999 B`, `1.23 KiB`, `80.0 GiB`.
pub fn bytes(n: u64) -> String {
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut scaled, mut unit) = (n as f64 / 1024.0, 0);
    while scaled >= 999.5 && unit < 4 {
        scaled /= 1024.0;
        unit += 1;
    }
    let decimals = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.decimals$} {}", ["KiB", "MiB", "GiB", "TiB", "PiB"][unit])
}

/// `850 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        _ if whole < 3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => {
            let minutes = (seconds / 60.0).round() as u64;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// A float with four significant digits, without trailing zeros: `0.01234`, `12.5`, `1.5e-7`.
pub fn number(value: f64) -> String {
    significant(value, 4)
}

/// A tick on an axis: as short as it stays exact.
pub(super) fn tick(value: f64) -> String {
    let (scale, unit) = match value.abs() {
        v if (1e4..1e6).contains(&v) => (1e3, "k"),
        v if (1e6..1e9).contains(&v) => (1e6, "M"),
        _ => (1.0, ""),
    };
    significant(value / scale, 6) + unit
}

fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    match exponent {
        _ if value == 0.0 => "0".into(),
        -4..=6 => trim(&format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize)),
        _ => format!("{}e{exponent}", trim(mantissa)),
    }
}
