//! Programs call by call with the host's ops, every tensor in a vector of its own: in f32, or rounded to bf16 after each
//! op, and what an op keeps with it, as the plainest engine would. Shares no planning and no storage rule with the engines.
use fipk::graph::{Home, Id, Program};
use fipk::ops::{Cotangent, Pass};
use fipk::params::Layout;
use fipk::tensor::{Element, View};
use half::bf16;

pub struct Naive<'a> {
    pub program: &'a Program,
    pub layout: &'a Layout,
    /// Whether what is between ops, and matrices, are bf16.
    pub rounds: bool,
    pub params: &'a [f32],
    pub tangents: &'a [f32],
    /// Words, by the input's name.
    pub inputs: &'a [(String, Vec<f32>)],
    pub seed: &'a [f32],
}

pub struct Found {
    pub output: Vec<f32>,
    pub tangent: Vec<f32>,
    /// In the layout.
    pub gradient: Vec<f32>,
}

fn rounded(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
}

impl Naive<'_> {
    pub fn run(&self) -> Found {
        let p = self.program;
        let mut buffers: Vec<Vec<f32>> = (0..p.buffers.len()).map(|id| self.outside(id)).collect();
        for c in &p.calls {
            let written: Vec<(Id, Vec<f32>)> =
                c.writes().into_iter().map(|id| (id, std::mem::take(&mut buffers[id]))).collect();
            let mut out: Vec<Vec<f32>> = written.iter().map(|w| w.1.clone()).collect();
            let x: Vec<View> = c.x.iter().map(|&id| View { data: &buffers[id], shape: &p.buffers[id].shape }).collect();
            let kept = c.op.kept(&x.iter().map(|x| x.shape).collect::<Vec<_>>());
            let y = &buffers[c.y];
            let saved: &[f32] = c.saved.filter(|_| c.pass != Pass::Forward).map_or(&[], |id| &buffers[id]);
            match c.pass {
                Pass::Forward => {
                    let (y, saved) = out.split_at_mut(1);
                    c.op.forward(&x, &mut y[0], saved.first_mut().map_or(&mut [], |s| s));
                }
                Pass::Dual => unreachable!("a program for the host"),
                Pass::Jvp => {
                    let dx: Vec<Option<&[f32]>> = c.dx.iter().map(|d| d.map(|id| &buffers[id][..])).collect();
                    c.op.jvp(&x, y, saved, &dx, &mut out[0]);
                }
                Pass::Vjp => {
                    let gy = &buffers[c.dy.unwrap()];
                    let mut rest = out.iter_mut();
                    let mut gx: Vec<Option<Cotangent>> =
                        c.gx.iter().map(|g| g.map(|(_, add)| Cotangent { data: rest.next().unwrap(), add })).collect();
                    c.op.vjp(&x, y, saved, gy, &mut gx);
                }
            }
            for ((id, _), mut data) in written.into_iter().zip(out) {
                let exact = c.op.exact() && c.pass == Pass::Forward;
                if self.rounds && !exact && Some(id) != c.saved && !matches!(p.buffers[id].home, Home::Cotangent(_)) {
                    rounded(&mut data);
                }
                // A tensor between two ops that are one.
                if self.rounds && Some(id) == c.saved && c.pass == Pass::Forward {
                    let own = data.len() - kept;
                    rounded(&mut data[own..]);
                }
                buffers[id] = data;
            }
        }
        let mut gradient = vec![0.0; self.layout.len()];
        for (b, data) in p.buffers.iter().zip(&buffers) {
            if let Home::Cotangent(nth) = b.home {
                gradient[self.layout.offset(nth)..][..data.len()].copy_from_slice(data);
            }
        }
        let tangent = p.d_output.map_or(Vec::new(), |id| buffers[id].clone());
        Found { output: buffers[p.output].clone(), tangent, gradient }
    }

    /// What a buffer holds before the first call.
    fn outside(&self, id: Id) -> Vec<f32> {
        let b = &self.program.buffers[id];
        let input = |nth: usize| {
            let name = &self.program.inputs[nth].0;
            self.inputs.iter().find(|i| i.0 == *name).unwrap().1.clone()
        };
        let part = |v: &[f32], nth: usize| v[self.layout.offset(nth)..][..b.numel()].to_vec();
        let mut data = match b.home {
            Home::Input(nth) => input(nth),
            Home::InputTangent(nth) => input(nth),
            Home::Param(nth) => part(self.params, nth),
            Home::Tangent(nth) => part(self.tangents, nth),
            Home::Seed => self.seed.to_vec(),
            Home::Cotangent(_) | Home::Work(_) => vec![f32::NAN; b.numel()],
        };
        let loss = |c: &&fipk::graph::Call| c.op.exact() && c.x.contains(&id);
        let matrix = !matches!(b.home, Home::Param(_) | Home::Tangent(_)) || b.shape.len() > 1;
        if self.rounds && b.element == Element::Real && matrix && !self.program.calls.iter().any(|c| loss(&c)) {
            rounded(&mut data);
        }
        data
    }
}
