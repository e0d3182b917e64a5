//! The planner: which buffers of the arena may share bytes. A buffer lives from the first call that writes
//! it to the last that reads it; two that live at once never overlap.
use super::{Home, Id, Program};

/// Buffers of an arena of floats start on a cache line (16 floats).
pub(crate) const ALIGN: usize = 16;

/// Where the buffers of one arena lie, in the unit that their sizes were given in.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// `None` for what lives elsewhere, and for what nobody touches.
    pub at: Vec<Option<usize>>,
    /// The arena's size.
    pub size: usize,
}

/// The first and the last call that touch each buffer of the arena; `None` for one nobody touches.
pub(crate) fn lifetimes(p: &Program) -> Vec<Option<(usize, usize)>> {
    let mut life: Vec<Option<(usize, usize)>> = vec![None; p.buffers.len()];
    for (at, call) in p.calls.iter().enumerate() {
        for id in call.reads().into_iter().chain(call.writes()) {
            let (first, _) = life[id].unwrap_or((at, at));
            life[id] = Some((first, at));
        }
    }
    // What can be fetched after the run lives to its end.
    let end = p.calls.len();
    let kept = p.fetches.iter().map(|f| f.1).chain([p.output]).chain(p.d_output);
    kept.for_each(|id| life[id] = life[id].map(|(first, _)| (first, end)));
    life
}

/// Give every buffer of the arena its offset: largest first, each at the lowest place that is free while it lives.
/// An engine that stores numbers its own way places them anew, by their sizes there.
pub fn place(p: &Program, align: usize, size_of: impl Fn(Id) -> usize) -> Placed {
    let life = lifetimes(p);
    let mut order: Vec<Id> = (0..p.buffers.len()).filter(|&i| matches!(p.buffers[i].home, Home::Work(_))).collect();
    order.retain(|&i| life[i].is_some());
    order.sort_by_key(|&i| (std::cmp::Reverse(size_of(i)), i));
    let mut out = Placed { at: vec![None; p.buffers.len()], size: 0 };
    let mut placed: Vec<(usize, usize, (usize, usize))> = Vec::new(); // start, end, lifetime
    for id in order {
        let Some((first, last)) = life[id] else { continue };
        let len = size_of(id).next_multiple_of(align);
        let mut busy: Vec<(usize, usize)> =
            placed.iter().filter(|(_, _, (f, l))| *f <= last && first <= *l).map(|&(s, e, _)| (s, e)).collect();
        busy.sort_unstable();
        let mut at = 0;
        for (start, end) in busy {
            if at + len <= start {
                break;
            }
            at = at.max(end);
        }
        placed.push((at, at + len, (first, last)));
        out.at[id] = Some(at);
        out.size = out.size.max(at + len);
    }
    out
}
