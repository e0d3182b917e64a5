//! `fipk bench kernels`: every op, pass and operation on weight space at the sizes of real networks, against what the
//! machine can do.
use super::super::device::{Numbers as Stored, Place, Purpose, Which, open_device, open_engine};
use super::super::globals::Context;
use super::measure::{Clock, Times, measure};
use super::ops::{Host, OnDevice, Only, Passes};
use super::products::Planned;
use super::reverse::{self, Both};
use super::shapes::{Numbers, Shape};
use super::space::{Operation, Space, layout};
use super::yardsticks::{Machine, Yardsticks, measured};
use crate::engine::Dtype;
use crate::gpu::Device;
use crate::gpu::driver::Driver;
use crate::ops::Pass;
use crate::report::Table;
use crate::selftest::dimensions;
use crate::{Error, Result};
use serde::Serialize;
use std::rc::Rc;

/// Every op and pass, and the operations on weight space, against this machine's bandwidth and best matrix product
///
/// Both yardsticks are measured first, in the same run. Data is random, and each turn takes other memory than the last,
/// more than the caches hold. Bytes and operations are counted on paper: what must move once, were nothing kept. On a
/// CUDA device its own clock is read (events), around many launches; operations on weight space go through the engine
/// and are waited for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk bench kernels --device cuda:0
  fipk bench kernels --device cuda:0 --filter 'linear_*' --shape bert-base --json
  fipk bench kernels --device cuda:0 --filter 'attention_*' --shape attention
  fipk bench kernels --device cpu --shape resnet20,resnet50 --parameters 0
  fipk bench kernels --device cpu --parameters 10000000")]
pub struct Args {
    /// Rows to time, by name: * and ? stand for any characters [default: all of them]
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,
    /// Networks whose sizes ops are timed at
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::BertBase, Shape::Minilm])]
    shape: Vec<Shape>,
    /// Parameters of the operations on weight space; 0 leaves them out
    #[arg(long, default_value_t = 110_000_000)]
    parameters: usize,
    /// Seconds to spend on a row
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
}

/// One row. Shares are of the yardsticks, in percent.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    dtype: String,
    shape: String,
    us: f64,
    fastest_us: f64,
    slowest_us: f64,
    gb_s: f64,
    tflop_s: f64,
    of_copy: f64,
    of_matmul: f64,
    /// The vendor's time over this one, in percent, at the same size; products alone have it.
    of_vendor: Option<f64>,
}

impl Row {
    fn new(
        name: String,
        dtype: Dtype,
        shape: String,
        times: &Times,
        (flops, bytes): (f64, f64),
        y: &Yardsticks,
    ) -> Self {
        let (gb_s, tflop_s) = (bytes / times.median * 1e-9, flops / times.median * 1e-12);
        let [us, fastest_us, slowest_us] = [times.median, times.fastest, times.slowest].map(|t| t * 1e6);
        let (of_copy, of_matmul) = (100.0 * gb_s / y.copy_gb_s, 100.0 * tflop_s / y.matmul(dtype));
        let dtype = dtype.suffix().to_string();
        Self { name, dtype, shape, us, fastest_us, slowest_us, gb_s, tflop_s, of_copy, of_matmul, of_vendor: None }
    }

    fn cells(&self) -> Vec<String> {
        let short = |x: f64| if x < 10.0 { format!("{x:.2}") } else { format!("{x:.0}") };
        let texts = [self.name.clone(), self.dtype.clone(), self.shape.clone()];
        let spread = format!("{} .. {}", short(self.fastest_us), short(self.slowest_us));
        let rates = [self.gb_s, self.tflop_s, self.of_copy, self.of_matmul].map(short);
        let vendor = self.of_vendor.map(short).unwrap_or_default();
        texts.into_iter().chain([short(self.us), spread]).chain(rates).chain([vendor]).collect()
    }
}

#[derive(Debug, Serialize)]
struct Results {
    device: String,
    yardsticks: Yardsticks,
    rows: Vec<Row>,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    if args.seconds.is_nan() || args.seconds <= 0.0 {
        return Err(Error::usage("--seconds", "wanted more than 0", "leave it out for 0.3"));
    }
    let bench = Bench::new(args, context)?;
    let sizes = args.shape.iter().any(|s| !s.toy());
    let yardsticks = measured(&bench.machine(), &bench.clock, args.seconds, sizes)?;
    let mut rows = bench.ops(&yardsticks)?;
    rows.extend(bench.products(&yardsticks)?);
    rows.extend(bench.space(&yardsticks)?);
    if rows.is_empty() {
        return Err(Error::usage("--filter", "names no row", "fipk bench kernels without it shows all names"));
    }
    let columns = ["kernel", "dtype", "shape", "us", "spread", "GB/s", "TFLOP/s", "% copy", "% matmul", "% vendor"];
    let table = Table {
        columns: columns.map(String::from).to_vec(),
        rows: rows.iter().map(Row::cells).collect(),
        ..Table::default()
    };
    let facts = yardsticks.table();
    let results = Results { device: bench.name, yardsticks, rows };
    context.output.result(&results, &[facts, table])
}

struct Bench<'a> {
    args: &'a Args,
    place: Place,
    name: String,
    wanted: Option<globset::GlobMatcher>,
    device: Option<Rc<dyn Device>>,
    driver: Option<Rc<Driver>>,
    clock: Clock,
    seed: u64,
}

impl<'a> Bench<'a> {
    fn new(args: &'a Args, context: &Context) -> Result<Self> {
        let place = Place::of(context, Purpose::Run)?;
        let driver = if let Which::Cuda(n) = place.device { Some(Rc::new(Driver::open(n)?)) } else { None };
        let device: Option<Rc<dyn Device>> = match (&driver, place.device) {
            (Some(driver), _) => Some(driver.clone()),
            (None, Which::Cpu) => None,
            (None, other) => Some(open_device(other)?),
        };
        let clock = device.clone().map_or(Clock::Wall, Clock::Device);
        let host = || format!("cpu ({} threads)", rayon::current_num_threads());
        let name = device.as_ref().map_or_else(host, |d| d.describe());
        let bad = |e: globset::Error| Error::usage("--filter", e.to_string(), "a glob, as 'linear_*'");
        let glob = args.filter.as_ref().map(|glob| globset::Glob::new(glob).map_err(bad)).transpose()?;
        let wanted = glob.map(|g| g.compile_matcher());
        Ok(Self { args, place, name, wanted, device, driver, clock, seed: context.seed.unwrap_or(0) })
    }

    fn machine(&self) -> Machine<'_> {
        match (&self.driver, &self.device) {
            (Some(driver), _) => Machine::Cuda(driver),
            (None, Some(device)) => Machine::Device(device),
            (None, None) => Machine::Host,
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.as_ref().is_none_or(|w| w.is_match(name))
    }

    fn ops(&self, yardsticks: &Yardsticks) -> Result<Vec<Row>> {
        let mut numbers = Numbers::new(self.seed);
        let mut rows = Vec::new();
        let dtypes: &[Dtype] = if self.device.is_some() { &[Dtype::Bf16, Dtype::F32] } else { &[Dtype::F32] };
        for shape in &self.args.shape {
            for case in shape.cases() {
                let dual = (self.device.is_some() && case.op.dual()).then_some((Pass::Dual, "dual"));
                let passes = [(Pass::Forward, "forward"), (Pass::Jvp, "jvp"), (Pass::Vjp, "vjp")];
                let passes: Vec<(Pass, &str)> = passes.into_iter().chain(dual).collect();
                let name = |op: &str, pass: &str| format!("{op}_{pass}");
                if !passes.iter().any(|(_, pass)| self.wants(&name(case.op.name(), pass))) {
                    continue;
                }
                let case = case.draw(&mut numbers);
                for &dtype in dtypes {
                    let mut on: Box<dyn Passes> = match &self.device {
                        Some(device) => Box::new(OnDevice::new(device, &case, dtype, &mut numbers)?),
                        None => Box::new(Host::new(&case, &mut numbers)?),
                    };
                    for (pass, word) in passes.iter().filter(|(_, word)| self.wants(&name(case.op.name(), word))) {
                        let cost = case.op.cost(*pass, &case.shapes());
                        // Counted for f32; what is stored as f32 beside bf16 is small.
                        let bytes = cost.bytes as f64 * dtype.bytes() as f64 / 4.0;
                        let times = measure(&self.clock, self.args.seconds, &mut Only(&mut *on, *pass))?;
                        let inputs: Vec<String> = case.inputs.iter().map(|i| dimensions(&i.shape)).take(2).collect();
                        let shape = format!("{}: {}", shape.name(), inputs.join(" "));
                        let paper = (cost.flops as f64, bytes);
                        rows.push(Row::new(name(case.op.name(), word), dtype, shape, &times, paper, yardsticks));
                    }
                }
            }
        }
        Ok(rows)
    }

    /// Products of linear layers by themselves; the host's are the ops' own.
    fn products(&self, yardsticks: &Yardsticks) -> Result<Vec<Row>> {
        let Some(device) = &self.device else { return Ok(Vec::new()) };
        let mut numbers = Numbers::new(self.seed);
        let mut rows = Vec::new();
        for shape in &self.args.shape {
            for dtype in [Dtype::Bf16, Dtype::F32] {
                for product in Planned::of(&**device, &shape.linears(), dtype, self.place.dtype == Stored::Tf32) {
                    if !self.wants(&product.name()) {
                        continue;
                    }
                    let (ours, vendors) =
                        product.time(device, self.driver.as_ref(), &self.clock, self.args.seconds, &mut numbers)?;
                    let text = format!("{}: {}, {}", shape.name(), product.shape, product.config);
                    let row = Row::new(product.name(), dtype, text, &ours, product.paper(), yardsticks);
                    let of_vendor = vendors.map(|v| 100.0 * v.median / ours.median);
                    rows.push(Row { of_vendor, ..row });
                }
                if !self.wants(reverse::NAME) {
                    continue;
                }
                for both in Both::of(&**device, &shape.linears(), dtype, self.place.dtype == Stored::Tf32) {
                    let times = both.time(device, &self.clock, self.args.seconds, &mut numbers)?;
                    let text = format!("{}: {}", shape.name(), both.text());
                    rows.push(Row::new(reverse::NAME.into(), dtype, text, &times, both.paper(), yardsticks));
                }
            }
        }
        Ok(rows)
    }

    fn space(&self, yardsticks: &Yardsticks) -> Result<Vec<Row>> {
        let wanted: Vec<Operation> = Operation::all().into_iter().filter(|o| self.wants(&o.name())).collect();
        if self.args.parameters == 0 || wanted.is_empty() {
            return Ok(Vec::new());
        }
        let engine = open_engine(self.place, layout(self.args.parameters))?;
        let copies = engine.dtype() == Some(Dtype::Bf16);
        let mut numbers = Numbers::new(self.seed);
        let mut space = Space::new(engine, &mut |n| numbers.take(n, 1.0))?;
        let parameters = space.parameters();
        let mut rows = Vec::new();
        for operation in wanted {
            space.timed = operation;
            let times = measure(&Clock::Wall, self.args.seconds, &mut space)?;
            let paper = (0.0, operation.bytes(copies) * parameters as f64);
            let shape = format!("{parameters} parameters");
            rows.push(Row::new(operation.name(), Dtype::F32, shape, &times, paper, yardsticks));
        }
        Ok(rows)
    }
}
