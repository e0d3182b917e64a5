//! Clocks, and how often to read them.
use crate::Result;
use crate::gpu::Device;
use std::rc::Rc;
use std::time::Instant;

/// What is timed: run again and again, each turn on other memory where there is some.
pub trait Work {
    fn run(&mut self, turn: usize) -> Result<()>;

    /// Wait until all of it is done.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Work that is done when it returns.
pub struct Task<F: FnMut(usize) -> Result<()>>(pub F);

impl<F: FnMut(usize) -> Result<()>> Work for Task<F> {
    fn run(&mut self, turn: usize) -> Result<()> {
        (self.0)(turn)
    }
}

#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's, around work that is waited for.
    Wall,
    /// The device's own, by events.
    Device(Rc<dyn Device>),
}

impl Clock {
    fn time(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        match self {
            Self::Device(device) => device.time(body),
            Self::Wall => {
                let start = Instant::now();
                body()?;
                Ok(start.elapsed().as_secs_f64())
            }
        }
    }
}

/// Seconds of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub fastest: f64,
    pub slowest: f64,
}

impl Times {
    fn of(mut each: Vec<f64>) -> Self {
        each.sort_by(f64::total_cmp);
        let at = |i: usize| each.get(i).copied().unwrap_or(f64::NAN);
        Self { median: at(each.len() / 2), fastest: at(0), slowest: at(each.len().saturating_sub(1)) }
    }
}

/// Samples of the time that `work` takes, for about `seconds` in all: three at least, after two runs that are not
/// counted. A sample is as many runs as a clock can tell apart.
pub fn measure(clock: &Clock, seconds: f64, work: &mut dyn Work) -> Result<Times> {
    const SHORTEST: f64 = 1e-3;
    const SAMPLES: f64 = 50.0;
    let mut turn = 0;
    let mut sample = |runs: usize| -> Result<f64> {
        let all = clock.time(&mut || {
            for _ in 0..runs {
                work.run(turn)?;
                turn += 1;
            }
            work.finish()
        })?;
        Ok(all / runs as f64)
    };
    sample(1)?;
    let once = sample(1)?.max(1e-9);
    let runs = (SHORTEST / once).ceil().clamp(1.0, 1000.0);
    let samples = (seconds / (runs * once)).clamp(3.0, SAMPLES) as usize;
    Ok(Times::of((0..samples).map(|_| sample(runs as usize)).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spread_are_of_the_samples() {
        let times = Times::of(vec![3.0, 1.0, 2.0, 9.0, 2.5]);
        assert_eq!(times, Times { median: 2.5, fastest: 1.0, slowest: 9.0 });
        let mut turns = Vec::new();
        let nap = |turn: usize| {
            turns.push(turn);
            std::thread::sleep(std::time::Duration::from_millis(3));
            Ok(())
        };
        let times = measure(&Clock::Wall, 0.02, &mut Task(nap)).unwrap();
        assert!(times.fastest >= 3e-3 && times.fastest <= times.median && times.median <= times.slowest, "{times:?}");
        assert!(turns.len() >= 5 && turns.iter().enumerate().all(|(i, t)| i == *t), "{turns:?}");
    }
}
