package flagd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/aviary-rollouts/aviary/internal/kube"
)

// maxTries is how often a ConfigMap that others write at the same time is read again for one change.
const maxTries = 20

// maxConfigMap is the most that Kubernetes keeps in a ConfigMap, in bytes, less some room for annotations.
const maxConfigMap = 1<<20 - 16<<10

// stampPrefix begins the names of the annotations that hold renewals. They are not mounted, so that flagd does not notice them.
const stampPrefix = "renewed.aviary.dev/"

// ConfigMap is a Store in a key of a ConfigMap, as the one that flagd mounts or watches.
type ConfigMap struct{ at *kube.ConfigMap }

var _ Store = (*ConfigMap)(nil)

// NewConfigMap is the store in a key of a ConfigMap, which must be there by the time that it is used.
func NewConfigMap(at *kube.ConfigMap) *ConfigMap { return &ConfigMap{at} }

// Name implements Store.
func (c *ConfigMap) Name() string { return c.at.String() }

// Read implements Store.
func (c *ConfigMap) Read(ctx context.Context) ([]byte, error) {
	v, err := c.at.Get(ctx)
	return []byte(v.Text), err
}

// Update implements Store.
func (c *ConfigMap) Update(ctx context.Context, change func([]byte) ([]byte, error)) error {
	for range maxTries {
		before, err := c.at.Get(ctx)
		if err != nil {
			return err
		}
		after, err := change([]byte(before.Text))
		if err != nil || string(after) == before.Text {
			return err
		}
		if len(after) > maxConfigMap {
			return fmt.Errorf("the flags are %d bytes, want at most %d in a ConfigMap", len(after), maxConfigMap)
		}
		if err = c.at.Set(ctx, before, string(after)); !errors.Is(err, kube.ErrMoved) {
			return err
		}
	}
	return fmt.Errorf("others changed it %d times at the same moment", maxTries)
}

// Renewals implements Store.
func (c *ConfigMap) Renewals(ctx context.Context) (map[string]string, error) {
	v, err := c.at.Get(ctx)
	if err != nil {
		return nil, err
	}
	stamps := map[string]string{}
	for name, stamp := range v.Annotations {
		flag, stamp, ok := strings.Cut(stamp, " ")
		if ok && name == stampName(flag) {
			stamps[flag] = stamp
		}
	}
	return stamps, nil
}

// Renew implements Store.
func (c *ConfigMap) Renew(ctx context.Context, flag, stamp string) error {
	return c.at.Annotate(ctx, stampName(flag), flag+" "+stamp)
}

// stampName is the annotation of a flag: a hash, since names of annotations are shorter than keys of flags may be.
func stampName(flag string) string {
	sum := sha256.Sum256([]byte(flag))
	return stampPrefix + hex.EncodeToString(sum[:16])
}
