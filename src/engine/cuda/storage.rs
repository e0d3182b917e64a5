//! How a program is stored on a device: the type of every buffer, and its place in the arenas.
use crate::gpu::Dtype;
use crate::graph::{Buffer, Call, Home, Id, Placed, Program, place};
use crate::tensor::Element;
use crate::{Error, Result};

/// Buffers start where a device's own allocations would.
pub const ALIGN: usize = 256;

/// The dtypes of a program's buffers, and what they take in each arena, in bytes.
#[derive(Clone, Debug)]
pub struct Storage {
    dtypes: Vec<Dtype>,
    /// Bytes of each buffer.
    sizes: Vec<usize>,
    /// Of what a call saves: where what it keeps begins, in bytes, if that is stored.
    kept: Vec<Option<usize>>,
    work: Placed,
    /// Of inputs, their directions and the seed, which one upload fills.
    outside: Vec<Option<usize>>,
    outside_size: usize,
    scratch: usize,
}

impl Storage {
    /// # Errors
    /// [`Error::Unsupported`] where an op that is not exact would read numbers of two types.
    pub fn new(p: &Program, compute: Dtype) -> Result<Self> {
        let dtypes = dtypes(p, compute)?;
        let mut sizes: Vec<usize> = p.buffers.iter().zip(&dtypes).map(|(b, dtype)| bytes(b, *dtype)).collect();
        let mut kept = vec![None; p.buffers.len()];
        for c in p.calls.iter().filter(|c| c.pass.gives_output()) {
            let (Some(saved), count) = (c.saved, c.op.kept(&shapes(p, c))) else { continue };
            if count > 0 {
                let at = (sizes[saved] - 4 * count).next_multiple_of(ALIGN);
                let read = p.calls.iter().any(|other| !other.pass.gives_output() && other.saved == Some(saved));
                kept[saved] = read.then_some(at);
                sizes[saved] = if read { at + count * dtypes[c.y].bytes() } else { sizes[saved] - 4 * count };
            }
        }
        let bytes = |id: Id| sizes[id];
        let work = place(p, ALIGN, bytes);
        let mut outside = vec![None; p.buffers.len()];
        let mut outside_size = 0;
        for (id, b) in p.buffers.iter().enumerate() {
            if matches!(b.home, Home::Input(_) | Home::InputTangent(_) | Home::Seed) {
                outside[id] = Some(outside_size);
                outside_size += bytes(id).next_multiple_of(ALIGN);
            }
        }
        let scratch = p.calls.iter().map(|c| c.op.scratch(c.pass, &shapes(p, c))).max().unwrap_or(0);
        Ok(Self { dtypes, sizes, kept, work, outside, outside_size, scratch })
    }

    /// Of real numbers; it says nothing of indices.
    pub fn dtype(&self, id: Id) -> Dtype {
        self.dtypes[id]
    }
    /// What a buffer takes.
    pub fn bytes(&self, id: Id) -> usize {
        self.sizes[id]
    }
    /// Where, in what a call saves, that which it keeps begins; `None` if it keeps nothing, or nothing reads it.
    pub fn kept(&self, id: Id) -> Option<usize> {
        self.kept[id]
    }
    /// Offset in the arena of activations; `None` for what lives elsewhere.
    pub fn work(&self, id: Id) -> Option<usize> {
        self.work.at[id]
    }
    /// Offset among what is uploaded for a run.
    pub fn outside(&self, id: Id) -> Option<usize> {
        self.outside[id]
    }
    /// Bytes of activations, their tangents or cotangents, and what ops save.
    pub fn activations(&self) -> usize {
        self.work.size
    }
    /// Bytes of inputs, their directions, and the seed.
    pub fn inputs(&self) -> usize {
        self.outside_size
    }
    /// The most that a call of the program needs for itself.
    pub fn scratch(&self) -> usize {
        self.scratch
    }
}

/// The shapes of what a call reads.
fn shapes<'p>(p: &'p Program, c: &Call) -> Vec<&'p [usize]> {
    c.x.iter().map(|&id| p.buffers[id].shape.as_slice()).collect()
}

/// What a buffer takes; indices take four bytes each.
fn bytes(b: &Buffer, dtype: Dtype) -> usize {
    let each = if b.element == Element::Index { 4 } else { dtype.bytes() };
    b.numel() * each
}

/// Losses keep f32, and so does what they are given for themselves, and the scores of an op that can widen them for
/// nobody else. What an op saves is f32, as are parameters with one axis and every gradient of a parameter. All else,
/// directions and cotangents with it, is computed in `compute`.
fn dtypes(p: &Program, compute: Dtype) -> Result<Vec<Dtype>> {
    let mut of: Vec<Dtype> = vec![compute; p.buffers.len()];
    for (id, b) in p.buffers.iter().enumerate() {
        let narrow = matches!(b.home, Home::Param(_) | Home::Tangent(_)) && b.shape.len() < 2;
        let loss_reads = matches!(b.home, Home::Input(_)) && readers(p, id).any(|c| c.op.exact());
        if narrow || loss_reads || matches!(b.home, Home::Cotangent(_)) {
            of[id] = Dtype::F32;
        }
    }
    for c in p.calls.iter().filter(|c| c.pass.gives_output()) {
        c.saved.into_iter().for_each(|id| of[id] = Dtype::F32);
        of[c.y] = output(p, c, compute, &of)?;
    }
    // What belongs to a tensor is stored as the tensor is.
    for c in &p.calls {
        let of_inputs = c.x.iter().zip(&c.dx).filter_map(|(&x, &d)| Some((x, d?)));
        let cotangents = c.x.iter().zip(&c.gx).filter_map(|(&x, &g)| Some((x, g?.0)));
        for (x, d) in of_inputs.chain(cotangents).chain(c.dy.map(|d| (c.y, d))) {
            if !matches!(p.buffers[d].home, Home::Cotangent(_)) {
                of[d] = of[x];
            }
        }
    }
    Ok(of)
}

/// The calls whose forward pass reads a buffer.
fn readers(p: &Program, id: Id) -> impl Iterator<Item = &Call> {
    p.calls.iter().filter(move |c| c.pass.gives_output() && c.x.contains(&id))
}

/// The dtype of a forward call's output.
fn output(p: &Program, c: &Call, compute: Dtype, of: &[Dtype]) -> Result<Dtype> {
    if c.op.exact() || compute == Dtype::F32 {
        return Ok(Dtype::F32);
    }
    let param = |id: Id| matches!(p.buffers[id].home, Home::Param(_));
    let real = c.x.iter().filter(|&&id| p.buffers[id].element == Element::Real && !param(id));
    let wide = |id: Id| of[id] == Dtype::F32;
    // Statistics are f32 beside matrices of either type, as a parameter with one axis is.
    let mixed = |id: Id| wide(id) && p.buffers[id].shape.len() > 1;
    match real.clone().all(|&id| wide(id)) {
        // A sum of losses.
        true if real.clone().count() > 0 && !c.x.iter().any(|&id| param(id)) => return Ok(Dtype::F32),
        _ if !real.clone().any(|&id| mixed(id)) => {}
        _ => {
            let what = format!("{} at {}, of what a loss and another op read, in bf16", c.op.name(), c.name);
            return Err(Error::unsupported("--dtype bf16", what, "use --dtype f32"));
        }
    }
    let scored = readers(p, c.y).all(|r| r.op.exact());
    let wanted = c.y == p.output || p.fetches.iter().any(|f| f.1 == c.y) || readers(p, c.y).next().is_some();
    Ok(if c.op.widens() && scored && wanted { Dtype::F32 } else { compute })
}
