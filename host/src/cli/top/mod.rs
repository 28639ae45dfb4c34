//! `wasmill top`: pipelines on a terminal, looked at each second; off a terminal, or with `--once`, one
//! frame as text. Here: the terminal, the keys, when it asks. Not here: what a frame shows (`view.rs`,
//! `model.rs`).

mod model;
mod view;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::Place;
use super::access::{IfAbsent, Streams};
use super::error::Error;
use super::output::Out;
use crate::admin::time;
use model::{Column, Model};

/// From one look at the host to the next.
const REFRESH: Duration = Duration::from_secs(1);
/// How soon a signal is noticed.
const NOTICE: Duration = Duration::from_millis(100);
/// Columns of a frame that no terminal shows.
const TEXT_WIDTH: u16 = 160;
/// Lines of such a frame.
const TEXT_HEIGHT_MAX: u16 = 500;

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Print one frame as text and end
    #[arg(long)]
    once: bool,
    /// Sort by this column
    #[arg(long, value_enum, default_value_t)]
    sort: Column,
}

pub(super) fn run(top: &Top, place: &Place, out: &mut Out) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    if !streams.is_live() {
        return Err(Error::failed(
            "no host runs on this directory",
            "start `wasmill run`; what lies in the directory is shown by `wasmill status`",
        ));
    }
    let mut model = Model::new(top.sort);
    if top.once || !std::io::stdout().is_terminal() {
        // Rates take two looks.
        look(&streams, &mut model, Instant::now());
        std::thread::sleep(REFRESH);
        look(&streams, &mut model, Instant::now());
        if let Some(why) = model.failed() {
            return Err(Error::failed(
                why,
                "the host may have ended; see its log and `wasmill status`",
            ));
        }
        for line in frame_text(&mut model) {
            out.line(line)?;
        }
        return Ok(());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        // The first one ends it with the terminal as it was; a second one does not wait for that.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut terminal = ratatui::try_init()?;
    let done = watch(&mut terminal, &streams, &mut model, &stop);
    ratatui::try_restore()?;
    done
}

fn watch(
    terminal: &mut DefaultTerminal,
    streams: &Streams,
    model: &mut Model,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let keys = Keys::new()?;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            look(streams, model, now);
            next = now + REFRESH;
        }
        terminal.draw(|frame| {
            let area = frame.area();
            view::draw(model, time::now_ms(), area, frame.buffer_mut());
        })?;
        let left = next.saturating_duration_since(Instant::now());
        if !keys.wait(left.min(NOTICE))? {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && !press(key, model)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The terminal that keys come from, which is not always standard input.
struct Keys(OwnedFd);

impl Keys {
    fn new() -> io::Result<Self> {
        let stdin = io::stdin();
        let terminal = if stdin.is_terminal() {
            stdin.as_fd().try_clone_to_owned()?
        } else {
            File::open("/dev/tty")?.into()
        };
        Ok(Self(terminal))
    }

    /// Waits for a key, a signal, or the end of this time. False when the terminal is gone: who read from it
    /// then would find nothing for ever, and never wait.
    fn wait(&self, time: Duration) -> io::Result<bool> {
        let mut asked = [PollFd::new(&self.0, PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap_or_default();
        match rustix::event::poll(&mut asked, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Ok(!asked.iter().any(|one| one.revents().intersects(gone)))
    }
}

/// A host that does not answer is shown as that, and asked again.
fn look(streams: &Streams, model: &mut Model, at: Instant) {
    match streams.status() {
        Ok(status) => model.see(status, at),
        Err(why) => model.fail(why.to_string()),
    }
}

/// False when the person wants to leave.
fn press(key: KeyEvent, model: &mut Model) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') => return false,
        KeyCode::Char('c') if is_control => return false,
        KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => model.close(),
        KeyCode::Enter | KeyCode::Right => model.open(),
        KeyCode::Char('s') => model.sort_by_next(),
        KeyCode::Char('r') => model.reverse(),
        KeyCode::Down | KeyCode::Char('j') => model.select(1),
        KeyCode::Up | KeyCode::Char('k') => model.select(-1),
        _ => {}
    }
    true
}

fn frame_text(model: &mut Model) -> Vec<String> {
    let height = view::height(model).min(TEXT_HEIGHT_MAX);
    let area = Rect::new(0, 0, TEXT_WIDTH, height);
    let mut buffer = Buffer::empty(area);
    view::draw_text(model, time::now_ms(), area, &mut buffer);
    view::lines(&buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_select_open_and_leave() {
        let mut model = model::tests::model();
        let mut press = |code| press(KeyEvent::from(code), &mut model);
        assert!(press(KeyCode::Char('s')));
        assert!(press(KeyCode::Down));
        assert!(press(KeyCode::Enter));
        assert!(press(KeyCode::Esc));
        assert!(!press(KeyCode::Char('q')));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(!super::press(control, &mut model));
    }
}
