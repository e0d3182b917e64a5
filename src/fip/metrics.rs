//! Measures of predictions, as GLUE and scikit-learn define them.

/// The share of equal pairs.
pub fn accuracy(predicted: &[usize], labels: &[usize]) -> f64 {
    let right = predicted.iter().zip(labels).filter(|(p, y)| p == y).count();
    right as f64 / labels.len().max(1) as f64
}

/// (true positives, false positives, false negatives, true negatives) of class 1.
fn confusion(predicted: &[usize], labels: &[usize]) -> [f64; 4] {
    let mut c = [0.0; 4];
    for (p, y) in predicted.iter().zip(labels) {
        c[match (*p == 1, *y == 1) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        }] += 1.0;
    }
    c
}

/// 2 tp / (2 tp + fp + fn) of class 1; 0 where nothing is or should be predicted.
pub fn f1(predicted: &[usize], labels: &[usize]) -> f64 {
    let [tp, fp, fne, _] = confusion(predicted, labels);
    if tp == 0.0 { 0.0 } else { 2.0 * tp / (2.0 * tp + fp + fne) }
}

/// Matthews' correlation of two classes; 0 where a row or column of the confusion matrix is empty.
pub fn matthews(predicted: &[usize], labels: &[usize]) -> f64 {
    let [tp, fp, fne, tn] = confusion(predicted, labels);
    let scale = ((tp + fp) * (tp + fne) * (tn + fp) * (tn + fne)).sqrt();
    if scale == 0.0 { 0.0 } else { (tp * tn - fp * fne) / scale }
}

/// Pearson's correlation; 0 where one side is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    if xx == 0.0 || yy == 0.0 { 0.0 } else { xy / (xx * yy).sqrt() }
}

/// Spearman's: Pearson's correlation of ranks, equal values sharing the mean of theirs.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|&&i| x[i] == x[order[start]]).count();
        let shared = start as f64 + (same as f64 - 1.0) / 2.0;
        order[start..start + same].iter().for_each(|&i| ranks[i] = shared);
        start += same;
    }
    ranks
}

/// The first of the largest.
pub fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best })
}

/// −log softmax(row)\[label\], in f64.
pub fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let top = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let sum: f64 = row.iter().map(|&v| f64::from(v - top).exp()).sum();
    sum.ln() - f64::from(row[label] - top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classification_by_hand() {
        // tp 2, fp 1, fn 1, tn 1
        let (p, y) = ([1, 1, 1, 0, 0], [1, 1, 0, 1, 0]);
        assert_eq!(accuracy(&p, &y), 0.6);
        assert!((f1(&p, &y) - 2.0 / 3.0).abs() <= 1e-15);
        assert!((matthews(&p, &y) - 1.0 / 6.0).abs() <= 1e-15); // (2·1 − 1·1)/√(3·3·2·2)
        assert_eq!((f1(&[0, 0], &[0, 0]), matthews(&[0, 0], &[0, 0])), (0.0, 0.0));
    }

    #[test]
    fn correlations_by_hand() {
        assert!((pearson(&[1.0, 2.0, 3.0], &[1.0, 2.0, 4.0]) - 0.981_980_506_061_965_7).abs() <= 1e-12); // 3/√(2·14/3)
        assert!((spearman(&[1.0, 2.0, 3.0, 10.0], &[1.0, 4.0, 9.0, 11.0]) - 1.0).abs() <= 1e-12);
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [1.5, 0.0, 1.5]);
        assert_eq!(pearson(&[1.0, 1.0], &[0.0, 3.0]), 0.0);
    }

    #[test]
    fn cross_entropy_does_not_overflow() {
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2f64.ln()).abs() <= 1e-12);
        assert_eq!(cross_entropy(&[1e4, -1e4], 0), 0.0);
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }
}
