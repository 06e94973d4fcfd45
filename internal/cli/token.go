package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router"
)

// How long a token may be good for.
const (
	leastToken = time.Minute
	mostToken  = 30 * 24 * time.Hour
)

// minting is the flags of token.
type minting struct {
	agent, version   string
	span             string
	keyID            string
	keyFile, keyFrom string // a file, or an environment variable
}

// minted is a token and what it says.
type minted struct {
	Token   string    `json:"token"`
	Agent   string    `json:"agent"`
	Version string    `json:"version"`
	KeyID   string    `json:"key_id"`
	Expires time.Time `json:"expires"`
}

func (a *app) token() *cobra.Command {
	var m minting
	cmd := &cobra.Command{
		Use: "token", Short: "Mint a token that lets a tester force a version", Args: cobra.NoArgs,
		Long: `Mint a signed token that lets a tester force a version of an agent, whatever its weight. Testers send it to the gateway:

  TOKEN=$(starter token --agent support-agent --version v42 --for 1h --key-id k1 --key-file pins.key)
  curl -H "X-Canary: v42" -H "X-Canary-Token: $TOKEN" http://127.0.0.1:8080/agents/support-agent/

Only the token is printed. It is signed with one of the gateway's pin_keys: the id is the key's there, and the secret the same, from
a file or an environment variable, never from the command line, which others can read. White space around a secret is no part of
it. With "X-Canary: stable" the token forces the stable version. Requests by token stay out of the metrics. A token can't be called
back before its time, except by taking its key out of pin_keys.`,
		RunE: func(*cobra.Command, []string) error { return a.runToken(m) },
	}
	flags := cmd.Flags()
	flags.StringVar(&m.agent, "agent", "", "`name` of the agent")
	flags.StringVar(&m.version, "version", "", "the `version` that may be forced")
	flags.StringVar(&m.span, "for", "1h", "`time` from now that the token is good for, such as 30m, 8h or 7d; at most 30d")
	flags.StringVar(&m.keyID, "key-id", "", "`id` of the key among the gateway's pin_keys")
	flags.StringVar(&m.keyFile, "key-file", "", "`file` that holds the key's secret")
	flags.StringVar(&m.keyFrom, "key-env", "", "`name` of the environment variable that holds the key's secret")
	cmd.MarkFlagsMutuallyExclusive("key-file", "key-env")
	for name, complete := range map[string]cobra.CompletionFunc{
		"agent": a.completeAgents, "version": cobra.NoFileCompletions, "for": cobra.FixedCompletions([]string{"30m", "1h", "8h", "7d"}, cobra.ShellCompDirectiveNoFileComp),
		"key-id": cobra.NoFileCompletions, "key-env": cobra.NoFileCompletions,
	} {
		if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // a flag that is not there: a mistake in this program
		}
	}
	return cmd
}

func (a *app) runToken(m minting) error {
	span, err := m.check()
	if err != nil {
		return usageError{err}
	}
	ring, err := a.ring(m)
	if err != nil {
		return usageError{err}
	}
	out := minted{Agent: m.agent, Version: m.version, KeyID: m.keyID, Expires: a.Clock.Now().Add(span).Truncate(time.Second).UTC()}
	out.Token = ring.OverrideToken(out.Agent, out.Version, out.Expires)
	return a.emit(out, func() {
		a.say("%s", out.Token)
		if a.Hints {
			_, _ = fmt.Fprintf(a.Err, `# forces %s of %s until %s:
#   curl -H "X-Canary: %s" -H "X-Canary-Token: …" GATEWAY/agents/%s/
`, out.Version, out.Agent, out.Expires.In(a.Zone).Format("2006-01-02 15:04:05 MST"), out.Version, out.Agent)
		}
	})
}

// check is how long the token is good for, or what is wrong with the flags.
func (m minting) check() (time.Duration, error) {
	var missing []string
	for _, f := range []struct{ flag, value string }{
		{"--agent", m.agent}, {"--version", m.version}, {"--key-id (of one of the gateway's pin_keys)", m.keyID},
		{"--key-file or --key-env", m.keyFile + m.keyFrom},
	} {
		if f.value == "" {
			missing = append(missing, f.flag)
		}
	}
	if len(missing) > 0 {
		return 0, fmt.Errorf("missing: %s", strings.Join(missing, ", "))
	}
	for _, f := range []struct{ flag, value string }{{"--agent", m.agent}, {"--version", m.version}} {
		if !rollout.ValidName(f.value) {
			return 0, fmt.Errorf("%s %q: want %s", f.flag, f.value, rollout.NamePattern)
		}
	}
	span, err := daysOrDuration(m.span)
	if err != nil || span < leastToken || span > mostToken {
		return 0, fmt.Errorf("--for %q: want a time such as 30m, 8h or 7d, from 1m to 30d", m.span)
	}
	return span, nil
}

// daysOrDuration reads a time.Duration, or whole days such as 7d.
func daysOrDuration(text string) (time.Duration, error) {
	days, isDays := strings.CutSuffix(text, "d")
	if !isDays {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil || !(math.Abs(n) <= mostPast.Hours()/24) { // false for NaN
		return 0, fmt.Errorf("%q is no number of days", text)
	}
	return time.Duration(n * 24 * float64(time.Hour)), nil
}

// ring is the key that the flags name. Its secret is read as the gateway reads it.
func (a *app) ring(m minting) (*router.Keyring, error) {
	var (
		secret config.Secret
		err    error
		flag   = "--key-file"
	)
	if m.keyFile != "" {
		secret, err = config.SecretFromFile(m.keyFile)
	} else {
		flag = "--key-env"
		secret, err = config.SecretFromEnv(m.keyFrom, environ(a.Env).LookupEnv)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	ring, err := router.NewKeyring(router.Key{ID: m.keyID, Secret: []byte(secret.Reveal())})
	if err != nil {
		return nil, fmt.Errorf("--key-id and %s: %w", flag, err)
	}
	return ring, nil
}
