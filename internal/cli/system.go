package cli

import (
	"context"
	"io"
	"os"
	"os/user"
	"runtime/debug"
	"time"

	"golang.org/x/term"
)

// System is the process as it is: its environment, user and clock, and out as a terminal if it is one.
func System(out, errs io.Writer, version string) Process {
	return Process{
		Out: out, Err: errs, Env: os.Environ(), User: userName(), Version: versionOf(version), Zone: time.Local,
		Terminal: func() (columns, rows int, ok bool) { return terminal(out) },
		Hints:    isTerminal(errs), Clock: wall{}, Dial: Dial,
	}
}

// userName is the name of the current user, or USER where the system knows none.
func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return os.Getenv("USER")
}

func isTerminal(w io.Writer) bool {
	f, isFile := w.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}

func terminal(out io.Writer) (columns, rows int, ok bool) {
	if !isTerminal(out) {
		return 0, 0, false
	}
	columns, rows, err := term.GetSize(int(out.(*os.File).Fd()))
	return columns, rows, err == nil && columns > 0
}

// versionOf is the linker's version, or else what the build knows of itself.
func versionOf(linked string) string {
	info, ok := debug.ReadBuildInfo()
	if linked != "" || !ok {
		return linked
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && version == "(devel)" {
			version = "devel " + s.Value[:min(12, len(s.Value))]
		}
	}
	return version
}

// wall is the real clock.
type wall struct{}

// Now implements Clock.
func (wall) Now() time.Time { return time.Now() }

// Sleep implements Clock.
func (wall) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
