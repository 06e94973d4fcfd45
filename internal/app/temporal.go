package app

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	tlog "go.temporal.io/sdk/log"

	"github.com/aviary-rollouts/aviary/config"
)

// temporalOptions joins the settings with Temporal's own: a profile of its configuration file first, then the settings, then the
// TEMPORAL_* environment, which wins.
func temporalOptions(t config.Temporal, registry prometheus.Registerer, log *slog.Logger) (client.Options, error) {
	profile, err := envconfig.LoadClientConfigProfile(envconfig.LoadClientConfigProfileOptions{
		ConfigFileProfile: t.Profile, DisableEnv: true,
	})
	if err != nil {
		return client.Options{}, fmt.Errorf("read Temporal's profile: %w", err)
	}
	overlay(&profile, t)
	if err := profile.ApplyEnvVars(envconfig.EnvLookupOS); err != nil {
		return client.Options{}, fmt.Errorf("read TEMPORAL_* from the environment: %w", err)
	}
	options, err := profile.ToClientOptions(envconfig.ToClientOptionsRequest{})
	if err != nil {
		return client.Options{}, fmt.Errorf("connection to Temporal: %w", err)
	}
	if options.HostPort == "" {
		options.HostPort = client.DefaultHostPort
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	options.Logger = tlog.NewStructuredLogger(log)
	options.MetricsHandler = newSDKMetrics(registry)
	return options, nil
}

func overlay(profile *envconfig.ClientConfigProfile, t config.Temporal) {
	if t.Address != "" {
		profile.Address = t.Address
	}
	if t.Namespace != "" {
		profile.Namespace = t.Namespace
	}
	if t.APIKey.Set() {
		profile.APIKey = t.APIKey.Reveal()
	}
	if t.TLS != nil {
		profile.TLS = &envconfig.ClientConfigTLS{
			ServerCACertPath: string(t.TLS.CA), ClientCertPath: string(t.TLS.Cert), ClientKeyPath: string(t.TLS.Key),
			ServerName: t.TLS.ServerName,
		}
	}
}
