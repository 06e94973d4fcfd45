package cli

import (
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
