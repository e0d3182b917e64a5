//! Operations on weight space on a device against the host's engine: bit for bit where the kernels promise it.
use super::list::Check;
use super::memory::{download, poisoned, upload};
use super::row::{Judged, Row, Tolerance, judge};
use crate::Result;
use crate::engine::cuda::{At, Flat, Knobs};
use crate::engine::{Criterion, Engine, Host, Mask, Optimizer, Pattern, Pull, Score, Selected, Update, Vector};
use crate::gpu::{Device, Dtype, Memory, Ptr};
use crate::graph::{Kind, Param};
use crate::params::{Layout, Role};
use crate::rng::Rng;
use std::ops::Range;
use std::rc::Rc;

/// Sums in f64 of terms that are exact there, in another order.
const F64_SUM: f64 = 1e-12;

pub(super) fn checks(seed: u64) -> Vec<Check> {
    type Run = fn(&Space) -> Result<Row>;
    let plain: [(&str, Run); 7] = [
        ("flat_axpy", axpy),
        ("flat_scale", scale),
        ("flat_narrow", narrow),
        ("flat_widen", widen),
        ("flat_dot", dot),
        ("flat_uniform", uniform),
        ("flat_normal", normal),
    ];
    let on = move |run: Run| move |device: &Rc<dyn Device>| run(&Space::new(device, seed)?);
    let mut all: Vec<Check> = plain.into_iter().map(|(name, run)| Check::one(name, on(run))).collect();
    for pattern in [
        Pattern::Global,
        Pattern::Layer,
        Pattern::Row,
        Pattern::NofM { n: 2, m: 4 },
        Pattern::NofM { n: 1, m: 13 },
        Pattern::Block { rows: 4, cols: 4 },
        Pattern::Block { rows: 3, cols: 32 },
    ] {
        let name = format!("select_{pattern}");
        let run = {
            let name = name.clone();
            move |device: &Rc<dyn Device>| select(&name, &Space::new(device, seed)?, pattern)
        };
        all.push(Check::one(&name, run));
    }
    all.push(Check::one("project", on(project)));
    let decay = 0.1;
    let optimizers = [
        ("adamw", Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay }),
        ("adam", Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay }),
        ("sgd", Optimizer::Sgd { momentum: 0.9, decay }),
    ];
    let pulls = [
        ("none", Pull::None),
        ("gradient", Pull::Gradient { coefficient: 0.3 }),
        ("shrink", Pull::Shrink { by: 0.01 }),
        ("hold", Pull::Hold),
    ];
    for (optimizer, rule) in optimizers {
        for (pull, by) in pulls {
            let name = format!("update_{optimizer}_{pull}");
            let run = {
                let name = name.clone();
                move |device: &Rc<dyn Device>| update(&name, &Space::new(device, seed)?, rule, by)
            };
            all.push(Check::one(&name, run));
        }
    }
    all
}

/// Spans with every kind of tail, one of several tiles, in all roles.
fn layout() -> Layout {
    let param = |(i, (shape, kind)): (usize, (&[usize], Kind))| Param {
        name: format!("{i}.weight"),
        shape: shape.to_vec(),
        kind,
        aliases: Vec::new(),
    };
    let spans: [(&[usize], Kind); 7] = [
        (&[37, 52], Kind::Weight),
        (&[67], Kind::Bias),
        (&[131, 104], Kind::Weight),
        (&[11, 13], Kind::Embedding),
        (&[1, 52], Kind::Weight),
        (&[31], Kind::Norm),
        (&[7, 31], Kind::Weight),
    ];
    let params: Vec<Param> = spans.into_iter().enumerate().map(param).collect();
    let (prunable, free, frozen) = (Role::Prunable, Role::Free, Role::Frozen);
    Layout::new(&params, &[prunable, free, prunable, free, prunable, free, frozen])
}

/// Weight space on the device, with what is drawn for it.
struct Space {
    device: Rc<dyn Device>,
    flat: Flat,
    layout: Layout,
    seed: u64,
}

impl Space {
    fn new(device: &Rc<dyn Device>, seed: u64) -> Result<Self> {
        let layout = layout();
        Ok(Self { device: device.clone(), flat: Flat::new(device, &layout)?, layout, seed })
    }

    /// A random vector, zero between spans. Every third number is rounded to a sixteenth, so that magnitudes meet again,
    /// zero among them.
    fn draw(&self, stream: u64) -> Vec<f32> {
        let mut rng = Rng::new(self.seed, stream);
        let mut data = vec![0.0; self.layout.len()];
        for span in self.layout.spans() {
            for (i, v) in data[span.range()].iter_mut().enumerate() {
                let drawn = rng.normal();
                *v = if i % 3 == 0 { (16.0 * drawn).round() / 16.0 } else { drawn };
            }
        }
        data
    }

    fn upload(&self, data: &[f32]) -> Result<Memory> {
        upload(&self.device, data, Dtype::F32)
    }
    fn read(&self, memory: &Memory) -> Result<Vec<f32>> {
        download(&self.device, memory, Dtype::F32)
    }
    fn mask_words(&self) -> usize {
        self.layout.range(Role::Prunable).end.div_ceil(32)
    }
    fn mask(&self) -> Result<Memory> {
        poisoned(&self.device, 4 * self.mask_words())
    }
    fn words(&self, mask: &Memory) -> Result<Vec<u32>> {
        let mut words = vec![0u32; self.mask_words()];
        self.device.download(mask.at(), bytemuck::cast_slice_mut(&mut words))?;
        Ok(words)
    }

    /// The host's engine with `data`, a vector each.
    fn host<const N: usize>(&self, data: [&[f32]; N]) -> Result<(Host, [Vector; N], Mask)> {
        let mut host = Host::new(self.layout.clone());
        let mut vectors = Vec::new();
        for data in data {
            let vector = host.zeros()?;
            host.write(vector, 0, data)?;
            vectors.push(vector);
        }
        let mask = host.mask()?;
        // As many as there were data.
        let first = vectors.first().copied();
        let vectors = std::array::from_fn(|i| vectors.get(i).copied().or(first).unwrap_or(Vector(0)));
        Ok((host, vectors, mask))
    }
    fn of(&self, host: &Host, v: Vector) -> Result<Vec<f32>> {
        let mut data = vec![0.0; self.layout.len()];
        host.read(v, 0, &mut data)?;
        Ok(data)
    }

    fn row(&self, name: &str, dtype: &str, checked: Result<(), String>) -> Row {
        Row::exact(name, dtype, self.layout.len().to_string(), checked)
    }
}

/// The same bits, or the first place where they are not.
fn same(what: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, wanted {}", got.len(), want.len()));
    }
    let differ = got.iter().zip(want).position(|(g, w)| g.to_bits() != w.to_bits());
    differ.map_or(Ok(()), |i| Err(format!("{what}[{i}]: got {:e}, want {:e}", got[i], want[i])))
}

fn same_words(what: &str, got: &[u32], want: &[u32]) -> Result<(), String> {
    let differ = (0..want.len().max(got.len())).find(|&i| got.get(i) != want.get(i));
    differ.map_or(Ok(()), |i| Err(format!("{what}: word {i} is {:08x?}, wanted {:08x?}", got.get(i), want.get(i))))
}

fn near(what: &str, got: f64, want: f64) -> Result<(), String> {
    // False for a NaN.
    let fine = (got - want).abs() <= F64_SUM * want.abs();
    if fine { Ok(()) } else { Err(format!("{what}: got {got:e}, want {want:e}")) }
}

fn axpy(s: &Space) -> Result<Row> {
    let (x, y) = (s.draw(1), s.draw(2));
    let (mut host, [hx, hy], _) = s.host([&x, &y])?;
    host.axpy(-0.37, hx, hy)?;
    let (dx, dy) = (s.upload(&x)?, s.upload(&y)?);
    s.flat.axpy(-0.37, dx.at(), dy.at())?;
    Ok(s.row("flat_axpy", "f32", same("y", &s.read(&dy)?, &s.of(&host, hy)?)))
}

fn scale(s: &Space) -> Result<Row> {
    let x = s.draw(1);
    let (mut host, [hx], _) = s.host([&x])?;
    host.scale(1.7, hx)?;
    let dx = s.upload(&x)?;
    s.flat.scale(1.7, dx.at())?;
    Ok(s.row("flat_scale", "f32", same("x", &s.read(&dx)?, &s.of(&host, hx)?)))
}

fn bf16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect()
}

fn narrow(s: &Space) -> Result<Row> {
    let x = s.draw(1);
    let (from, to) = (s.upload(&x)?, poisoned(&s.device, 2 * x.len())?);
    // Two ranges, the second not on 16 bytes.
    let cut = (x.len() / 3) | 1;
    s.flat.narrow(from.at(), to.at(), 0..cut)?;
    s.flat.narrow(from.at(), to.at(), cut..x.len())?;
    let got = download(&s.device, &to, Dtype::Bf16)?;
    Ok(s.row("flat_narrow", "bf16", same("y", &got, &bf16(&x))))
}

fn widen(s: &Space) -> Result<Row> {
    let x = bf16(&s.draw(1));
    let (from, to) = (upload(&s.device, &x, Dtype::Bf16)?, poisoned(&s.device, 4 * x.len())?);
    let cut = (x.len() / 3) | 1;
    s.flat.widen(from.at(), to.at(), 0..cut)?;
    s.flat.widen(from.at(), to.at(), cut..x.len())?;
    Ok(s.row("flat_widen", "bf16", same("y", &s.read(&to)?, &x)))
}

fn dot(s: &Space) -> Result<Row> {
    let (x, y) = (s.draw(1), s.draw(2));
    let (host, [hx, hy], _) = s.host([&x, &y])?;
    let (dx, dy) = (s.upload(&x)?, s.upload(&y)?);
    let mut judged = Judged::default();
    for range in [0..x.len(), 0..0, 5..6, 31..9001, 4096..8192] {
        for (a, b, ha, hb) in [(&dx, &dy, hx, hy), (&dx, &dx, hx, hx)] {
            let got = s.flat.dot(a.at(), b.at(), range.clone())?;
            let want = host.dot(ha, hb, range.clone())?;
            let size: f64 = x[range.clone()].iter().zip(&y[range.clone()]).map(|(x, y)| f64::from((x * y).abs())).sum();
            let error = if got == want { 0.0 } else { (got - want).abs() / size.max(want.abs()) };
            let what = format!("{range:?}: got {got:e}, want {want:e}");
            let (tolerance, norm_tolerance) = (F64_SUM, F64_SUM);
            judged = judged.or_worse(Judged { worst: error, norm: error, tolerance, norm_tolerance, what });
        }
    }
    Ok(Row::new("flat_dot", "f32", x.len().to_string(), &judged))
}

/// Philox from a position within a block of four words.
fn uniform(s: &Space) -> Result<Row> {
    let n = 4099;
    let mut rng = Rng::new(s.seed, 9).at(4_294_967_291);
    let position = rng.position();
    let to = poisoned(&s.device, 4 * n)?;
    s.flat.uniform(to.at(), n, (s.seed, 9, position))?;
    let want: Vec<f32> = (0..n).map(|_| rng.uniform()).collect();
    Ok(Row::exact("flat_uniform", "f32", n.to_string(), same("y", &s.read(&to)?, &want)))
}

fn normal(s: &Space) -> Result<Row> {
    let n = 4099;
    let mut rng = Rng::new(s.seed, 9).at(6);
    let to = poisoned(&s.device, 4 * n)?;
    s.flat.normal(to.at(), n, (s.seed, 9, 6))?;
    let want: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
    // Rounded from f64, so all but never further than one unit in the last place.
    let scale: Vec<f64> = want.iter().map(|w| f64::from(w.abs())).collect();
    let judged = judge("y", &s.read(&to)?, &want, &scale, Tolerance::Ulps(1.0));
    Ok(Row::new("flat_normal", "f32", n.to_string(), &judged))
}

fn same_choice(what: &str, got: &Selected, want: &Selected) -> Result<(), String> {
    if got.pruned != want.pruned || got.threshold.to_bits() != want.threshold.to_bits() {
        return Err(format!("{what}: got {got:?}, want {want:?}"));
    }
    near(&format!("{what}: |w - w_p|^2"), got.pruned_squares, want.pruned_squares)?;
    near(&format!("{what}: |w|^2"), got.squares, want.squares)
}

fn select(name: &str, s: &Space, pattern: Pattern) -> Result<Row> {
    let w = s.draw(1);
    let (mut host, [hw], hm) = s.host([&w])?;
    let (dw, dm) = (s.upload(&w)?, s.mask()?);
    let mut checked = Ok(());
    for score in [Score::Magnitude, Score::Random { seed: s.seed }] {
        for sparsity in [0.0, 1e-4, 0.37, 0.6, 1.0] {
            let how = Criterion { pattern, score, sparsity };
            let want = host.select(hw, &how, None, hm)?;
            let got = s.flat.select(dw.at(), &how, None, dm.at())?;
            let what = format!("{score:?} at {sparsity}");
            let (mask, of_host) = (s.words(&dm)?, host.read_mask(hm)?);
            checked = checked.and_then(|()| same_words(&what, &mask, &of_host));
            checked = checked.and_then(|()| same_choice(&what, &got, &want));
        }
    }
    let after = s.read(&dw)?;
    checked = checked.and_then(|()| same("w", &after, &w));
    Ok(s.row(name, "f32", checked))
}

fn project(s: &Space) -> Result<Row> {
    let w = s.draw(1);
    let (mut host, [hw], hm) = s.host([&w])?;
    let how = Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: 0.6 };
    host.select(hw, &how, None, hm)?;
    host.project(hw, hm)?;
    let want = s.of(&host, hw)?;
    let mask = s.mask()?;
    s.device.upload(mask.at(), bytemuck::cast_slice(&host.read_mask(hm)?))?;
    let (plain, with, shadow) = (s.upload(&w)?, s.upload(&w)?, upload(&s.device, &w, Dtype::Bf16)?);
    s.flat.project(plain.at(), Ptr::NULL, mask.at())?;
    s.flat.project(with.at(), shadow.at(), mask.at())?;
    let mut checked = same("w", &s.read(&plain)?, &want);
    checked = checked.and(same("w beside its copy", &s.read(&with)?, &want));
    checked = checked.and(same("the copy", &download(&s.device, &shadow, Dtype::Bf16)?, &bf16(&want)));
    Ok(s.row("project", "f32", checked))
}

/// Three steps, each on a gradient of its own and the mask that the last step's census chose.
fn update(name: &str, s: &Space, optimizer: Optimizer, pull: Pull) -> Result<Row> {
    let zeros = vec![0.0; s.layout.len()];
    let w = s.draw(1);
    let (mut host, [hw, hg, hm, hv], mask) = s.host([&w, &zeros, &zeros, &zeros])?;
    let [dw, dg, dm, dv] = [s.upload(&w)?, s.upload(&zeros)?, s.upload(&zeros)?, s.upload(&zeros)?];
    let (shadow, words) = (poisoned(&s.device, 2 * w.len())?, s.mask()?);
    let second = optimizer.second_moments();
    let how = Criterion { pattern: Pattern::Global, score: Score::Magnitude, sparsity: 0.6 };
    let chosen = host.select(hw, &how, None, mask)?;
    s.flat.select(dw.at(), &how, None, words.at())?;
    let (mut checked, mut threshold) = (Ok(()), chosen.threshold);
    for step in 1..=3 {
        let g = s.draw(10 + step);
        host.write(hg, 0, &g)?;
        s.device.upload(dg.at(), bytemuck::cast_slice(&g))?;
        let bits = |x: f32| (threshold * x).to_bits();
        let u = Update {
            optimizer,
            step,
            learning_rate: 0.01,
            gradient_scale: 0.7,
            w: hw,
            g: hg,
            m: hm,
            v: second.then_some(hv),
            mask: Some(mask),
            pull,
            census: Some((bits(0.9), bits(1.1))),
        };
        let want = host.update(&u)?;
        s.flat.write_knobs(&Knobs::new(&u))?;
        let v = if second { dv.at() } else { Ptr::NULL };
        let at = At { w: dw.at(), g: dg.at(), m: dm.at(), v, shadow: shadow.at(), mask: words.at() };
        s.flat.queue_norm(dg.at())?;
        s.flat.queue_update(&optimizer, &at)?;
        let (got, gradient_squares) = s.flat.read_updated()?;

        let trained = 0..s.layout.range(Role::Frozen).start;
        let all = s.of(&host, hw)?;
        let copy = download(&s.device, &shadow, Dtype::Bf16)?;
        let pairs = [("w", &dw, hw), ("m", &dm, hm), ("v", &dv, hv)];
        for (what, on_device, on_host) in pairs {
            let (a, b) = (s.read(on_device)?, s.of(&host, on_host)?);
            checked = checked.and_then(|()| same(&format!("step {step}: {what}"), &a, &b));
        }
        // Between spans nobody writes.
        for span in s.layout.spans().iter().filter(|span| span.role != Role::Frozen) {
            let (a, b) = (&copy[span.range()], bf16(&all[span.range()]));
            checked = checked.and_then(|()| same(&format!("step {step}: the copy of {}", span.name), a, &b));
        }
        // The host sums these in f32 first; its weights, which are the device's by now, give them better.
        let of_host = host.read_mask(mask)?;
        let pruned = |i: usize| of_host.get(i / 32).is_some_and(|word| word >> (i % 32) & 1 == 1);
        let sum = |range: Range<usize>, counts: &dyn Fn(usize) -> bool| {
            range.filter(|&i| counts(i)).map(|i| f64::from(all[i]).powi(2)).sum::<f64>()
        };
        let prunable = s.layout.range(Role::Prunable);
        let norms = [
            ("|w|^2", got.squares, sum(trained.clone(), &|_| true)),
            ("|prunable|^2", got.prunable_squares, sum(prunable.clone(), &|_| true)),
            ("|pruned|^2", got.pruned_squares, sum(prunable, &pruned)),
            ("|g|^2", gradient_squares, host.dot(hg, hg, trained)?),
        ];
        for (what, got, want) in norms {
            checked = checked.and_then(|()| near(&format!("step {step}: {what}"), got, want));
        }
        let want = host.select(hw, &how, want.census, mask)?;
        let got = s.flat.select(dw.at(), &how, got.census.as_ref(), words.at())?;
        let (ours, theirs) = (s.words(&words)?, host.read_mask(mask)?);
        checked = checked.and_then(|()| same_words(&format!("step {step}: chosen from the census"), &ours, &theirs));
        checked = checked.and_then(|()| same_choice(&format!("step {step}: chosen from the census"), &got, &want));
        threshold = want.threshold;
    }
    Ok(s.row(name, "f32", checked))
}
