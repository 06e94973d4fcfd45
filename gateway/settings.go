package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/proxy"
)

// load reads the settings file, with its defaults filled in.
func load(path string) (config.Gateway, error) {
	var g config.Gateway
	raw, err := os.ReadFile(path)
	if err != nil {
		return g, fmt.Errorf("read the settings: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	switch err := d.Decode(&g); {
	case errors.Is(err, io.EOF):
		return g, fmt.Errorf("%s: the settings are empty: want at least admin_token_env or admin_token_file", path)
	case err != nil:
		return g, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return g, fmt.Errorf("%s: the settings hold a second document: want one", path)
	}
	g.SetDefaults()
	return g, nil
}

// secret reads a secret from the environment or a file. With neither named it is "".
func secret(what, env, file string) (string, error) {
	switch {
	case env != "" && file != "":
		return "", fmt.Errorf("%s has both an environment variable and a file: want one", what)
	case env != "":
		v := os.Getenv(env)
		if v == "" {
			return "", fmt.Errorf("%s: environment variable %s is not set", what, env)
		}
		return v, nil
	case file != "":
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		v := strings.TrimSpace(string(raw))
		if v == "" {
			return "", fmt.Errorf("%s: file %s is empty", what, file)
		}
		return v, nil
	}
	return "", nil
}

// keyring is the ring of the settings' keys, or nil when there are none.
func keyring(keys []config.GatewayKey, log *slog.Logger) (*router.Keyring, error) {
	if len(keys) == 0 {
		log.Warn("pins are signed with a random key: they end with this process, and other replicas don't know them; set pin_keys")
		return nil, nil
	}
	var ring []router.Key
	for i, k := range keys {
		what := fmt.Sprintf("pin_keys[%d]", i)
		v, err := secret(what, k.Env, k.File)
		if err != nil {
			return nil, err
		}
		if v == "" {
			return nil, fmt.Errorf("%s: want env or file", what)
		}
		ring = append(ring, router.Key{ID: k.ID, Secret: []byte(v)})
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
	o := router.Options{
		Agents: map[string]router.AgentOptions{}, Keys: keys, PinTTL: g.PinTTL, DrainDeadline: g.DrainDeadline,
		StateFile: g.StateFile, Memory: g.Memory, Logger: log,
	}
	for name, a := range g.Agents {
		versions := map[string]api.Version{}
		for version, v := range a.Versions {
			versions[version] = api.Version{URL: v.URL, Metadata: v.Metadata}
		}
		o.Agents[name] = router.AgentOptions{Stable: a.Stable, Versions: versions}
	}
	return o, nil
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
		Agents: map[string]proxy.Match{}, Names: proxy.Names(g.Names), TrustedNetworks: networks, TrustedProxies: proxies,
		KeepFeedback: g.KeepFeedbackHeaders, DialTimeout: g.Timeouts.Dial, HeaderTimeout: g.Timeouts.ResponseHeader, Logger: log,
	}
	for name, a := range g.Agents {
		o.Agents[name] = proxy.Match{Host: a.Host, Path: a.Path}
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
