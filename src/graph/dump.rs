//! A program as text (`Display`, for snapshots and `fipk plan --calls`) and as a Graphviz drawing.
use super::{Home, Id, Mode, Program};
use std::fmt;

impl Program {
    fn place(&self, id: Id) -> String {
        let b = &self.buffers[id];
        let at = match b.home {
            Home::Input(_) => "input".to_string(),
            Home::InputTangent(_) => "input tangent".to_string(),
            Home::Param(_) => "param".to_string(),
            Home::Tangent(_) => "tangent".to_string(),
            Home::Cotangent(_) => "cotangent".to_string(),
            Home::Seed => "seed".to_string(),
            Home::Work(at) => format!("@{at}"),
        };
        format!("{}{:?} {at}", b.name, b.shape)
    }

    /// The calls as a Graphviz digraph: one node a call, an edge where one reads what another wrote.
    pub fn graphviz(&self) -> String {
        let mut text = String::from("digraph program {\n  rankdir=TB; node [shape=box, fontname=monospace];\n");
        let mut writer: Vec<Option<usize>> = vec![None; self.buffers.len()];
        for (i, c) in self.calls.iter().enumerate() {
            text += &format!("  c{i} [label=\"{} {:?}\\n{}\"];\n", c.op.name(), c.pass, c.name);
            let from = |id: &Id| writer[*id].map(|w| format!("  c{w} -> c{i};\n"));
            let edges: std::collections::BTreeSet<String> = c.reads().iter().filter_map(from).collect();
            text.extend(edges);
            c.writes().into_iter().for_each(|id| writer[id] = Some(i));
        }
        text + "}\n"
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let unshared: usize = self
            .buffers
            .iter()
            .filter(|b| matches!(b.home, Home::Work(_)))
            .map(|b| b.numel().next_multiple_of(super::plan::ALIGN))
            .sum();
        let mode = match self.mode {
            Mode::Forward => "forward",
            Mode::Tangent => "tangent",
            Mode::Reverse => "reverse",
        };
        writeln!(f, "{mode}: {} calls, arena {} of {unshared} floats", self.calls.len(), self.arena)?;
        for c in &self.calls {
            let list = |ids: Vec<Id>| ids.into_iter().map(|id| self.place(id)).collect::<Vec<_>>().join(", ");
            let pass = format!("{:?}", c.pass).to_lowercase();
            writeln!(f, "{} {pass}: {} <- {}", c.op.name(), list(c.writes()), list(c.reads()))?;
        }
        Ok(())
    }
}
