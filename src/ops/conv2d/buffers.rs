//! Memory that calls hand on to the next: pages fresh from the system cost as much as the sums they would hold.
use std::sync::Mutex;

static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// How many are kept.
const KEPT: usize = 32;

/// `n` floats that hold anything. The smallest buffer that has them, where there is one.
pub(super) fn take(n: usize) -> Vec<f32> {
    let found = FREE.lock().ok().and_then(|mut free| {
        let fits = free.iter().enumerate().filter(|(_, b)| b.capacity() >= n);
        let at = fits.min_by_key(|(_, b)| b.capacity())?.0;
        Some(free.swap_remove(at))
    });
    let mut buffer = found.unwrap_or_default();
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    buffer.truncate(n);
    buffer
}

/// Leave a buffer for a later call, in place of the smallest if there are many.
pub(super) fn give(buffer: Vec<f32>) {
    let Ok(mut free) = FREE.lock() else { return };
    free.push(buffer);
    if free.len() > KEPT {
        let smallest = free.iter().enumerate().min_by_key(|(_, b)| b.capacity()).map(|(at, _)| at);
        smallest.map(|at| free.swap_remove(at));
    }
}

/// `n` floats of a buffer that grows when it must, from the start of a cache line on: a vector that lies in two costs
/// twice. They hold anything.
pub(super) fn aligned(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    const LINE: usize = 64;
    if buffer.len() < n + LINE / 4 {
        buffer.resize(n + LINE / 4, 0.0);
    }
    let at = buffer.as_ptr().align_offset(LINE).min(LINE / 4);
    &mut buffer[at..at + n]
}
