package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// badFile is a rollout file that can't be used. Its problems stand alone, each with file and line.
type badFile struct{ error }

func (e badFile) Unwrap() error { return e.error }

// overrides adds the flags that complete a rollout file.
func overrides(cmd *cobra.Command) *config.Overrides {
	var o config.Overrides
	cmd.Flags().StringVar(&o.Agent, "agent", "", "`name` of the agent, in place of the file's")
	cmd.Flags().StringVar(&o.Stable, "stable", "", "stable `version`, in place of the file's")
	cmd.Flags().StringVar(&o.Canary, "canary", "", "canary `version`, in place of the file's")
	return &o
}

func load(file string, o config.Overrides) (rollout.Spec, error) {
	spec, err := config.LoadRollout(file, o)
	if err != nil {
		return spec, usageError{badFile{err}}
	}
	return spec, nil
}

// checked is what lint says of one file.
type checked struct {
	File     string   `json:"file"`
	OK       bool     `json:"ok"`
	Agent    string   `json:"agent,omitempty"`
	Stages   int      `json:"stages,omitempty"`
	Problems []string `json:"problems,omitempty"` // as file:line: path: what is wrong, and what is allowed
}

func (a *app) lint() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lint FILE...", Short: "Check rollout files, and say everything that is wrong with them", GroupID: groupFile,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("want at least one FILE")}
			}
			return nil
		},
	}
	o := overrides(cmd)
	cmd.RunE = func(_ *cobra.Command, files []string) error { return a.checkFiles(files, *o) }
	return cmd
}

func (a *app) checkFiles(files []string, o config.Overrides) error {
	var (
		results []checked
		bad     int
	)
	for _, file := range files {
		spec, err := load(file, o)
		r := checked{File: file, OK: err == nil, Agent: spec.Agent, Stages: len(spec.Stages), Problems: problems(err)}
		if err != nil {
			bad++
		}
		results = append(results, r)
	}
	err := a.emit(results, func() {
		for _, r := range results {
			if r.OK {
				a.say("%s: ok, %d stages for %s", r.File, r.Stages, r.Agent)
			}
			for _, p := range r.Problems {
				_, _ = fmt.Fprintln(a.Err, p)
			}
		}
	})
	if err == nil && bad > 0 {
		return usageError{badFile{fmt.Errorf("%d of %d files can't be used", bad, len(files))}}
	}
	return err
}

// problems are the single problems of an error of config.
func problems(err error) []string {
	var all config.Problems
	if !errors.As(err, &all) {
		if err == nil {
			return nil
		}
		return []string{err.Error()}
	}
	out := make([]string, len(all))
	for i, p := range all {
		out[i] = p.String()
	}
	return out
}

func (a *app) render() *cobra.Command {
	cmd := &cobra.Command{
		Use: "render FILE", Short: "Print the workflow's input as JSON, for tctl and temporal", GroupID: groupFile, Args: one("FILE"),
		Long: `Print the workflow's input as JSON, complete with every default. To start it without starter:

  starter render rollout.yaml > in.json
  temporal workflow start --type Canary --task-queue aviary -w canary/AGENT --input-file in.json --fail-existing`,
	}
	o := overrides(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		spec, err := load(args[0], *o)
		if err != nil {
			return err
		}
		text, err := config.Render(spec)
		if err != nil {
			return err
		}
		if a.output == "yaml" {
			return a.emit(spec, nil)
		}
		_, err = a.Out.Write(text)
		return err
	}
	return cmd
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.emit(map[string]string{"version": a.Version}, func() { a.say("starter %s", a.Version) })
		},
	}
}
