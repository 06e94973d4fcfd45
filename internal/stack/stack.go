package stack

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Devstack is a running Temporal server with its UI.
type Devstack struct {
	*Process
	Frontend string `json:"frontend"` // host:port
	UI       string `json:"ui"`       // URL; empty when headless
}

// StartDevstack starts the embedded Temporal server with its files in dir and waits until it answers.
func StartDevstack(ctx context.Context, dir string, args ...string) (*Devstack, error) {
	d := &Devstack{}
	p, err := start(ctx, "devstack", dir, d, nil, args...)
	d.Process = p
	return d, err
}

// Gateway is a running gateway.
type Gateway struct {
	*Process
	Proxy string `json:"proxy"` // host:port that serves the agents
	Admin string `json:"admin"` // host:port of the admin API
}

// StartGateway starts a gateway with the settings file and waits until it answers. The name tells replicas apart.
func StartGateway(ctx context.Context, name, dir, settings string, env ...string) (*Gateway, error) {
	g := &Gateway{}
	p, err := startAs(ctx, name, "gateway", dir, g, env, "--config", settings)
	g.Process = p
	return g, err
}

// Worker is a running worker.
type Worker struct {
	*Process
	HTTP string `json:"http"` // host:port of metrics and health
}

// StartWorker starts a worker with the settings file and waits until it polls.
func StartWorker(ctx context.Context, dir, settings string, env ...string) (*Worker, error) {
	w := &Worker{}
	p, err := start(ctx, "worker", dir, w, env, "--config", settings)
	w.Process = p
	return w, err
}

func start(ctx context.Context, binary, dir string, into any, env []string, args ...string) (*Process, error) {
	return startAs(ctx, binary, binary, dir, into, env, args...)
}

// startAs runs a binary and fills into from the address file that it writes once it is ready.
func startAs(ctx context.Context, name, binary, dir string, into any, env []string, args ...string) (*Process, error) {
	bin, err := Binary(binary)
	if err != nil {
		return nil, err
	}
	addresses := filepath.Join(dir, name+".addr")
	if err := os.Remove(addresses); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove the old addresses of %s: %w", name, err)
	}
	p, err := Run(name, filepath.Join(dir, name+".log"), env, bin, append(args, "--addr-file", addresses)...)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, addresses, into); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Token is a fresh random secret.
func Token() string { return rand.Text() }

// WriteSettings fills {{NAME}} marks of a settings file and writes it, readable by its owner only.
func WriteSettings(path, text string, values map[string]string) error {
	pairs := make([]string, 0, 2*len(values))
	for k, v := range values {
		pairs = append(pairs, "{{"+k+"}}", v)
	}
	filled := strings.NewReplacer(pairs...).Replace(text)
	if i := strings.Index(filled, "{{"); i >= 0 {
		return fmt.Errorf("settings %s: no value for %.40q", filepath.Base(path), filled[i:])
	}
	if err := os.WriteFile(path, []byte(filled), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}
