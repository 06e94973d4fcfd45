// Command tables simulates canaries whose truth is known, lets Aviary's analysis and the rules of other tools judge them, and prints what came out
// as Markdown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/internal/trials"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// settings are those of the command line.
type settings struct {
	trials.Options
	only string
	file string
}

func run(_ context.Context, args []string, out, errs io.Writer) int {
	s, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(errs, "tables: %v\n", err)
		return 2
	}
	chosen, err := trials.Choose(names(s.only)...)
	if err != nil {
		fmt.Fprintf(errs, "tables: %v\n", err)
		return 2
	}
	if s.file != "" { // before an hour is spent on what can't be written
		if err := checkMarkers(s.file); err != nil {
			fmt.Fprintf(errs, "tables: %v\n", err)
			return 1
		}
	}
	text := measure(s, chosen, errs)
	if s.file == "" {
		fmt.Fprint(out, text)
		return 0
	}
	if err := insert(s.file, text); err != nil {
		fmt.Fprintf(errs, "tables: %v\n", err)
		return 1
	}
	return 0
}

func parse(args []string, errs io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("tables", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.IntVar(&s.Weeks, "weeks", 340, "simulated `weeks` per setting where error rates are measured")
	flags.IntVar(&s.Runs, "runs", 80, "rollouts per setting elsewhere")
	flags.Uint64Var(&s.Seed, "seed", 1, "of the random numbers: the same one gives the same tables")
	flags.IntVar(&s.Workers, "workers", runtime.GOMAXPROCS(0), "that simulate at once")
	flags.StringVar(&s.only, "only", "", "experiments, with commas between: "+known())
	flags.StringVar(&s.file, "o", "", "a Markdown `file` with the markers of the tables, which are put between them; without it they are printed")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var bad []error
	if flags.NArg() > 0 {
		bad = append(bad, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	for name, n := range map[string]int{"weeks": s.Weeks, "runs": s.Runs, "workers": s.Workers} {
		if n < 1 {
			bad = append(bad, fmt.Errorf("-%s %d: want 1 or more", name, n))
		}
	}
	return s, errors.Join(bad...)
}

func known() string { return strings.Join(experimentNames(), ", ") }

func experimentNames() []string {
	var out []string
	for _, e := range trials.Experiments() {
		out = append(out, e.Name)
	}
	return out
}

// names are those between commas.
func names(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// measure runs the experiments one after the other, and tells on errs how far it is.
func measure(s settings, chosen []trials.Experiment, errs io.Writer) string {
	var b strings.Builder
	began := time.Now()
	for _, e := range chosen {
		start := time.Now()
		fmt.Fprintf(errs, "%s: %s\n", e.Name, e.What)
		s.Progress = progress(errs)
		for _, t := range e.Run(s.Options) {
			b.WriteString(t.Markdown() + "\n")
		}
		fmt.Fprintf(errs, "%s: done in %s\n", e.Name, time.Since(start).Round(time.Second))
	}
	return heading(s, began, time.Since(began)) + b.String()
}

// progress tells of what is done, and every half a minute of what is not.
func progress(errs io.Writer) func(string, int, int) {
	const pause = 30 * time.Second
	last := time.Now()
	return func(what string, done, of int) {
		if done == of || time.Since(last) > pause {
			last = time.Now()
			fmt.Fprintf(errs, "  %s: %d of %d\n", what, done, of)
		}
	}
}

// heading says what was measured, where and when.
func heading(s settings, began time.Time, took time.Duration) string {
	return fmt.Sprintf("Measured on %s on a machine with %d processors (%s/%s, %s): %d weeks a setting for error rates, %d rollouts elsewhere, seed %d, %s.\n\n",
		began.UTC().Format("2 January 2006"), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), s.Weeks, s.Runs, s.Seed,
		took.Round(time.Second))
}
