package main

import (
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/proxy"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// keyring is the ring of the settings' keys, or nil when there are none.
func keyring(keys []config.GatewayKey, log *slog.Logger) (*router.Keyring, error) {
	if len(keys) == 0 {
		log.Warn("pins are signed with a random key: they end with this process, and other replicas don't know them; set pin_keys")
		return nil, nil
	}
	var ring []router.Key
	for _, k := range keys {
		ring = append(ring, router.Key{ID: k.ID, Secret: []byte(k.Secret.Reveal())})
	}
	r, err := router.NewKeyring(ring...)
	if err != nil {
		return nil, fmt.Errorf("pin_keys: %w", err)
	}
	return r, nil
}

func routerOptions(g config.Gateway, log *slog.Logger) (router.Options, error) {
	keys, err := keyring(g.PinKeys, log)
	if err != nil {
		return router.Options{}, err
	}
	return router.Options{
		Agents: agentOptions(g), Keys: keys, PinTTL: g.PinTTL,
		DrainDeadline: max(g.DrainDeadline, 1), // to the router 0 is its default, to the settings it is no time at all
		StateFile:     string(g.StateFile), Memory: g.Memory, StickyMemory: g.StickyMemory, Logger: log,
	}, nil
}

// agentOptions are the agents of the settings.
func agentOptions(g config.Gateway) map[string]router.AgentOptions {
	agents := map[string]router.AgentOptions{}
	for name, a := range g.Agents {
		versions := map[string]api.Version{}
		for version, v := range a.Versions {
			versions[version] = api.Version{URL: v.URL, URLs: v.URLs, Metadata: v.Metadata, Fingerprint: v.Fingerprint}
		}
		agents[name] = router.AgentOptions{Stable: a.Stable, Versions: versions, Limits: upstream.Limits{
			Concurrency: a.Limits.Concurrency, Queue: a.Limits.Queue, Wait: a.Limits.QueueTimeout,
		}, Hash: a.Hash, SideEffects: a.SideEffects}
	}
	return agents
}

func proxyOptions(g config.Gateway, log *slog.Logger) (proxy.Options, error) {
	networks, err := prefixes("trusted_networks", g.TrustedNetworks)
	if err != nil {
		return proxy.Options{}, err
	}
	proxies, err := prefixes("trusted_proxies", g.TrustedProxies)
	if err != nil {
		return proxy.Options{}, err
	}
	o := proxy.Options{
		Agents: map[string]proxy.Match{}, Timeouts: map[string]proxy.Timeouts{}, Names: proxy.Names(g.Names), TrustedNetworks: networks, TrustedProxies: proxies,
		KeepFeedback: g.KeepFeedbackHeaders, DialTimeout: g.Timeouts.Dial, HeaderTimeout: g.Timeouts.ResponseHeader, Logger: log,
		ClientRead: g.Timeouts.ClientRead, ClientWrite: g.Timeouts.ClientWrite, NoTrace: !g.StartTraces, AccessSample: g.AccessLog.Sample,
	}
	if !g.AccessLog.Off {
		o.AccessLog = log
	}
	for name, a := range g.Agents {
		o.Agents[name] = proxy.Match{Host: a.Host, Path: a.Path}
		o.Timeouts[name] = proxy.Timeouts{Header: a.Timeouts.ResponseHeader, Idle: a.Timeouts.IdleStream}
	}
	return o, nil
}

func prefixes(what string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s[%d] %q: want a network such as 10.0.0.0/8", what, i, s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
