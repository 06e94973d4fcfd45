package cli

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
)

// silent is an address where somebody listens and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	return l.Addr().String()
}

func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"refused": refused, "silent": silent(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			c, err := Dial(ctx, client.Options{HostPort: address})
			if err == nil {
				c.Close()
				t.Fatal("connected to nobody")
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("gave up after %s", took)
			}
		})
	}
}
