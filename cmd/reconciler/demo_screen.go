package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// screen prints the demo's lines. A person's terminal that went away is no reason to end what they started, so errors of
// writing are not looked at.
type screen struct {
	live bool // a terminal: the step under way shows a clock

	mu    sync.Mutex
	out   io.Writer
	step  string // under way
	since time.Time
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	return &screen{out: f, live: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"}
}

// The widths of the columns: a step's name, what there is now, and at the right the time that it took.
const (
	nameWidth = 13
	factWidth = 60
)

// clearLine is what a terminal does to the line that the clock is on.
const clearLine = "\r\x1b[K"

// line prints a line, above the clock of the step under way.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, format+"\n", args...)
	s.draw()
}

// note prints what a sandbox has to say of something long.
func (s *screen) note(text string) { s.line("    %s", text) }

// during runs a step, and prints its line when it is done: name, the fact that do returns, and the time. A failed step
// prints none; the error is told by who gets it.
func (s *screen) during(name string, do func() (fact string, err error)) error {
	s.mu.Lock()
	s.step, s.since = name, time.Now()
	s.draw()
	s.mu.Unlock()
	stop := s.tick()
	fact, err := do()
	stop()
	s.mu.Lock()
	took := time.Since(s.since)
	s.clear()
	s.step = ""
	s.mu.Unlock()
	if err == nil {
		s.result(name, fact, fmt.Sprintf("%.1f s", took.Seconds()))
	}
	return err
}

func (s *screen) result(name, fact, took string) {
	s.line("  %-*s %-*s %7s", nameWidth, name, factWidth, fact, took)
}

// tick redraws the clock every second until the function that it returns is called.
func (s *screen) tick() (stop func()) {
	if !s.live {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				s.mu.Lock()
				s.clear()
				s.draw()
				s.mu.Unlock()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (s *screen) clear() {
	if s.live && s.step != "" {
		fmt.Fprint(s.out, clearLine)
	}
}

func (s *screen) draw() {
	if s.live && s.step != "" {
		fmt.Fprintf(s.out, "  %-*s … %.0f s", nameWidth, s.step, time.Since(s.since).Seconds())
	}
}
