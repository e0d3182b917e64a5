//! `fipk drift`: how far the outputs of two models are apart.
use super::device::{Place, Purpose};
use super::globals::Context;
use super::model::Model;
use super::output::facts;
use super::size::ImageSize;
use crate::data::{self, Spec};
use crate::fip::evaluate::drift;
use crate::fip::recipe::Objective;
use crate::fip::runner::Runner;
use crate::params::Roles;
use crate::report::Table;
use crate::report::numbers::{grouped, number, percent};
use crate::{Error, Result};

/// Compare the outputs of two models on the same data
///
/// For every example the four output distances (METHOD, "Output distances") of B's logits from A's, as mean and
/// quantiles, and how often both put the same class first. For masked language models, the mean over the positions
/// that are attended to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk drift bert-sst2 run/model --data glue/sst2:SST-2
  fipk drift lenet/model run/model --data 'mnist:MNIST?limit=1000' --json")]
pub struct Args {
    /// The model to compare with, usually the dense one
    #[arg(value_name = "A")]
    a: String,
    /// The model that may have drifted
    #[arg(value_name = "B")]
    b: String,
    /// Data to compare on, as KIND:PATH?key=value; the held-out split unless ?split= names another
    #[arg(long, value_name = "SPEC")]
    data: String,
    /// Examples in a batch
    #[arg(long, value_name = "EXAMPLES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Most tokens of a text, special ones included; longer ones are cut
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(3..))]
    max_length: u32,
    /// Pixels of the images both networks see, both sides or HEIGHTxWIDTH; a vision transformer's positions are interpolated
    /// [default: the models' own]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<ImageSize>,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let spec: Spec = args.data.parse()?;
    let (a, b) = (Model::open_at(&args.a, args.image_size)?, Model::open_at(&args.b, args.image_size)?);
    let head = a.network.head;
    if head != b.network.head {
        let what = format!("its head is {:?}, the other's {head:?}", b.network.head);
        return Err(Error::model(args.b.as_str(), what, "compare networks with the same head"));
    }
    let reading = a.reading(args.max_length as usize, context.seed.unwrap_or(0))?;
    let data = data::load(&spec, "test", &reading)?;
    let runner = |model: &Model| {
        let (engine, w) = model.engine(Place::of(context, Purpose::Look)?, model.layout(&Roles::default())?)?;
        Ok::<_, Error>((Runner::new(engine, model.network.clone(), Objective::default()), w))
    };
    let ((mut run_a, w_a), (mut run_b, w_b)) = (runner(&a)?, runner(&b)?);
    let mut found = drift(&*data, args.batch as usize, head, |x| run_a.logits(w_a, x), |x| run_b.logits(w_b, x))?;
    (found.a, found.b) = (args.a.clone(), args.b.clone());

    let rows = found.distances.iter().map(|(name, q)| {
        let mut row = vec![name.clone()];
        row.extend([q.mean, q.median, q.p90, q.p99, q.max].map(number));
        row
    });
    let columns = ["distance", "mean", "median", "90 %", "99 %", "max"].map(String::from).to_vec();
    let table = Table { title: String::new(), columns, rows: rows.collect() };
    let mut summary = vec![("examples", grouped(found.examples))];
    summary.extend(found.same_top1.map(|share| ("same first class", percent(share))));
    context.output.result(&found, &[table, facts(&summary)])
}
