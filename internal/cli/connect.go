package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	tlog "go.temporal.io/sdk/log"

	"github.com/aviary-rollouts/aviary/workflows"
)

// Limits on waiting for others.
const (
	connectLimit = 4 * time.Second // for Temporal to answer at all
	answerLimit  = 5 * time.Second // for a worker to take an update or a query
	callLimit    = 8 * time.Second // for Temporal to answer any other call
)

// Dial connects to a Temporal server, and returns an error when it can't until ctx is done.
func Dial(ctx context.Context, options client.Options) (Temporal, error) {
	options.Logger = tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	options.ConnectionOptions.GetSystemInfoTimeout = connectLimit
	c, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// session is a connection to Temporal.
type session struct {
	temporal  Temporal
	clock     Clock
	address   string
	namespace string
	ui        string // without a slash at the end; empty: no links
}

// connect finds the settings as Temporal's own tools do, lets flags win, and dials. Close the session's client after use.
func (a *app) connect(ctx context.Context) (*session, error) {
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{
		ConfigFileProfile: a.profile,
		EnvLookup:         environ(a.Env),
	})
	if err != nil {
		return nil, usageError{fmt.Errorf("the settings of Temporal (temporal.toml, TEMPORAL_*): %w", err)}
	}
	if a.address != "" {
		options.HostPort = a.address
	}
	if a.space != "" {
		options.Namespace = a.space
	}
	if options.HostPort == "" {
		options.HostPort = client.DefaultHostPort
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	dialing, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	t, err := a.Dial(dialing, options)
	if err != nil {
		if ctx.Err() != nil {
			return nil, errors.New("interrupted before Temporal answered")
		}
		return nil, fmt.Errorf("no Temporal server answers at %s: start one, or name yours with TEMPORAL_ADDRESS or --address: %w", options.HostPort, err)
	}
	return &session{temporal: t, clock: a.Clock, address: options.HostPort, namespace: options.Namespace, ui: a.uiAddress()}, nil
}

// uiAddress is where the Temporal UI is, without a slash at the end, or nothing.
func (a *app) uiAddress() string {
	for _, u := range []string{a.ui, a.env("AVIARY_UI"), a.env("TEMPORAL_UI")} {
		if u != "" {
			return strings.TrimRight(u, "/")
		}
	}
	return ""
}

// link is a rollout's page in the Temporal UI, or nothing when it is not known where that is.
func (s *session) link(agent string) string {
	if s.ui == "" {
		return ""
	}
	return fmt.Sprintf("%s/namespaces/%s/workflows/%s", s.ui, url.PathEscape(s.namespace), url.PathEscape(workflows.WorkflowID(agent)))
}

// environ is an environment as os.Environ returns it.
type environ []string

// Environ implements envconfig.EnvLookup.
func (e environ) Environ() []string { return e }

// LookupEnv implements envconfig.EnvLookup. Of a name that stands twice, the last counts.
func (e environ) LookupEnv(name string) (string, bool) {
	for i := len(e) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(e[i], "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}
