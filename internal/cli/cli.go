// Package cli is the command line of Aviary: it starts rollouts as Temporal workflows, shows where they stand, and passes on what
// humans ask of them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
)

// Exit codes of the command line.
const (
	ExitDone      = 0
	ExitFailed    = 1
	ExitUsage     = 2 // bad flags, bad arguments, bad files; nothing was done
	ExitTakenBack = 3 // the rollout that was waited for was rolled back, aborted or canceled
)

// Clock tells the time and waits. Tests bring their own.
type Clock interface {
	Now() time.Time
	// Sleep waits for d, or until ctx is done; then it returns ctx's error.
	Sleep(ctx context.Context, d time.Duration) error
}

// Process is all that the command line sees of the world around it. System is the real one.
type Process struct {
	Out, Err io.Writer
	Env      []string // as os.Environ
	User     string   // who asks, unless --by says so
	Version  string
	Zone     *time.Location // of the times shown
	// Terminal returns the size of the terminal behind Out; ok is false when there is none.
	Terminal func() (columns, rows int, ok bool)
	// Hints: Err is read by a human, who may like to be told how to go on.
	Hints bool
	Clock Clock
	// Dial connects to Temporal, or returns an error at once when it can't within ctx.
	Dial func(ctx context.Context, options client.Options) (Temporal, error)
	// Past reads a version's past from a metrics source, and says what it read. Nil: there is no source.
	Past func(ctx context.Context, q PastQuery) (*History, string, error)
	// Present reads what two versions do now, poll by poll, and says what it read. Nil: there is no source.
	Present func(ctx context.Context, q PresentQuery) ([]Poll, string, error)
}

// Run carries out one command and returns the exit code. When ctx is done it stops soon; a rollout that it watched goes on.
func Run(ctx context.Context, args []string, p Process) int {
	out := &sink{to: p.Out}
	p.Out = out
	a := &app{Process: p}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	code := a.end(root.ExecuteContext(ctx))
	if out.err != nil && code == ExitDone {
		a.warn("the output could not be written: %v", out.err)
		return ExitFailed
	}
	return code
}

// sink remembers the first error of writing, so that a full disk or a closed pipe is never taken for success.
type sink struct {
	to  io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.to.Write(p)
	if s.err == nil {
		s.err = err
	}
	return n, err
}

// app is one run of the command line.
type app struct {
	Process
	output  string // table, json or yaml
	address string
	space   string
	profile string
	ui      string
	entered string // the command that runs; empty while cobra still parses
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "starter",
		Short: "Roll a new version of an agent out, a little at a time",
		Long: `starter starts canary rollouts of AI agents, watches them and passes on what you decide.

It finds Temporal the way Temporal's own tools do: TEMPORAL_ADDRESS (localhost:7233 unless set), TEMPORAL_NAMESPACE,
TEMPORAL_PROFILE, TEMPORAL_API_KEY, TEMPORAL_TLS and so on, or a profile in temporal.toml.

Exit codes: 0 done, 1 failed, 2 wrong usage or a bad file, 3 rolled back or aborted (start --watch, start --wait, watch).`,
		Version:           a.Version, // of --version; the command version can say it as JSON, too
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.enter,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "table", "`form` of the output: table, json or yaml")
	flags.StringVar(&a.address, "address", "", "`host:port` of Temporal (TEMPORAL_ADDRESS)")
	flags.StringVar(&a.space, "namespace", "", "`name` of the Temporal namespace (TEMPORAL_NAMESPACE)")
	flags.StringVar(&a.profile, "profile", "", "`name` of the profile in temporal.toml (TEMPORAL_PROFILE)")
	flags.StringVar(&a.ui, "ui", "", "`URL` of the Temporal UI, for links (AVIARY_UI, TEMPORAL_UI)")
	root.AddGroup(
		&cobra.Group{ID: groupSee, Title: "See:"},
		&cobra.Group{ID: groupAsk, Title: "Decide:"},
		&cobra.Group{ID: groupFile, Title: "Rollout files:"},
	)
	root.AddCommand(a.start(), a.list(), a.status(), a.watch(), a.decisions())
	root.AddCommand(a.asks()...)
	root.AddCommand(a.lint(), a.render(), a.version())
	root.AddCommand(a.simulate())
	root.AddCommand(a.calibrate())
	root.AddCommand(a.plan())
	root.AddCommand(a.token())
	root.SetVersionTemplate("starter {{.Version}}\n")
	root.SetHelpCommand(a.help())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{plainly(err)} })
	return root
}

// help is cobra's, but for a topic that there is not.
func (a *app) help() *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("unknown command %q for %q", rest[0], about.CommandPath())
			}
			if err != nil {
				return usageError{err}
			}
			return about.Help()
		},
	}
}

const (
	groupSee  = "see"
	groupAsk  = "ask"
	groupFile = "file"
)

// enter runs before every command, once its flags and arguments have been parsed.
func (a *app) enter(cmd *cobra.Command, _ []string) error {
	switch a.output {
	case "table", "json", "yaml":
	default:
		return usageError{fmt.Errorf("--output %q: want table, json or yaml", a.output)}
	}
	if err := cmd.ValidateFlagGroups(); err != nil { // cobra would check them too late to be a wrong command line
		return usageError{plainly(err)}
	}
	a.entered = cmd.CommandPath()
	return nil
}

// plainly is cobra's error of a wrong command line without Go's names for what is wrong.
func plainly(err error) error {
	text := goNames.ReplaceAllString(err.Error(), "")
	if m := flagGroup.FindStringSubmatch(text); m != nil {
		text = "want one of --" + strings.Join(strings.Fields(m[1]), ", --")
	}
	return errors.New(text)
}

var (
	goNames   = regexp.MustCompile(`strconv\.\w+: (parsing "[^"]*": )?|\btime: `)
	flagGroup = regexp.MustCompile(`^at least one of the flags in the group \[([^\]]*)\] is required$`)
)

// env looks a variable up; unset and empty are the same.
func (a *app) env(name string) string {
	v, _ := environ(a.Env).LookupEnv(name)
	return v
}

// screen is where Out ends.
func (a *app) screen() Screen {
	columns, _, ok := a.Terminal()
	if !ok {
		return Screen{}
	}
	return Screen{Width: columns, Color: a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"}
}

// say writes a line to Out.
func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.Out, format+"\n", args...) }

// warn writes a line to Err.
func (a *app) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Err, "starter: "+format+"\n", args...)
}
