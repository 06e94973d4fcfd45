package flagd_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/activities/traffic/flagd"
	"github.com/aviary-rollouts/aviary/rollout"
)

// TestLostStamp: a canary whose renewals somebody deleted is still guarded.
func TestLostStamp(t *testing.T) {
	t.Parallel()
	path := write(t, fresh)
	d := flagd.New(flagd.NewFile(path))
	if err := d.Apply(t.Context(), route(500, 1)); err != nil {
		t.Fatal(err)
	}
	before, err := d.Leases(t.Context())
	if err != nil || len(before) != 1 || before[0].TTL != time.Minute || before[0].Owner != "o" {
		t.Fatalf("leases %+v, %v", before, err)
	}
	if err := os.Remove(path + ".leases"); err != nil {
		t.Fatal(err)
	}
	after, err := d.Leases(t.Context())
	if err != nil || len(after) != 1 {
		t.Fatalf("leases %+v, %v; want it still there", after, err)
	}
	if err := d.Expire(t.Context(), before[0]); err != nil {
		t.Fatal(err)
	}
	if seen, _ := d.Read(t.Context(), route(0, 0)); seen.LeaseExpired {
		t.Error("a lease that changed since it was read was expired")
	}
	if err := d.Expire(t.Context(), after[0]); err != nil {
		t.Fatal(err)
	}
	if seen, _ := d.Read(t.Context(), route(0, 0)); !seen.LeaseExpired || seen.Effective != 0 || seen.Weight != 500 {
		t.Errorf("%+v, want the lease expired", seen)
	}
}

// TestRefusedRenewNothing: whoever may not set the flag does not keep another's canary alive either.
func TestRefusedRenewNothing(t *testing.T) {
	t.Parallel()
	path := write(t, fresh)
	d := flagd.New(flagd.NewFile(path))
	if err := d.Apply(t.Context(), route(500, 2)); err != nil {
		t.Fatal(err)
	}
	before := read(t, path+".leases")
	other := route(500, 9)
	other.Owner = "somebody else"
	for _, r := range []rollout.Route{route(500, 1), other} {
		var lost *traffic.OwnershipLost
		if err := d.Apply(t.Context(), r); !errors.As(err, &lost) {
			t.Errorf("%s at %d: %v, want it refused", r.Owner, r.Revision, err)
		}
	}
	if after := read(t, path+".leases"); after != before {
		t.Errorf("the lease was renewed from %s to %s", before, after)
	}
	leases, err := d.Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("leases %+v, %v", leases, err)
	}
	leases[0].Owner = "somebody else"
	if err := d.Expire(t.Context(), leases[0]); err != nil {
		t.Fatal(err)
	}
	if seen, _ := d.Read(t.Context(), route(0, 0)); seen.Effective != 500 {
		t.Errorf("another owner's lease took the canary back: %+v", seen)
	}
}

// TestMangledFlag: whatever somebody makes of a flag in a rollout, its canary is guarded, can be taken back, and shows as changed.
func TestMangledFlag(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"a variant that is no text":  {`"canary": "v42"`, `"canary": "v42", "third": 3`},
		"no stable":                  {`"stable": "v41"`, `"stable": false`},
		"another stable":             {`"stable": "v41"`, `"stable": "v40"`},
		"a state that is no text":    {`"state": "ENABLED"`, `"state": 1`},
		"metadata of another type":   {`"aviary_revision": 1`, `"aviary_revision": "one"`},
		"another default":            {`"defaultVariant": "stable"`, `"defaultVariant": null`},
		"a variant, taken out again": {`"canary": "v42"`, `"canary": "v42", "third": "v43"`},
	} {
		path := write(t, fresh)
		d := flagd.New(flagd.NewFile(path))
		if err := d.Apply(t.Context(), route(500, 1)); err != nil {
			t.Fatal(err)
		}
		text := read(t, path)
		changed := strings.Replace(text, change[0], change[1], 1)
		if changed == text {
			t.Fatalf("%s: there is no %s in\n%s", name, change[0], text)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		leases, err := d.Leases(t.Context())
		if err != nil || len(leases) != 1 || leases[0].TTL != time.Minute {
			t.Errorf("%s: leases %+v, %v; want it guarded", name, leases, err)
			continue
		}
		seen, err := d.Read(t.Context(), route(0, 0))
		if err != nil || seen.Owner != "o" || seen.Stable != "v41" {
			t.Errorf("%s: %+v, %v", name, seen, err)
		}
		if err := d.Expire(t.Context(), leases[0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		back := route(0, 2)
		back.Rollback = true
		if err := d.Apply(t.Context(), back); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if seen, err := d.Read(t.Context(), route(0, 0)); err != nil || seen.Stable != "v41" || seen.Effective != 0 || seen.Drift != "" {
			t.Errorf("%s, taken back: %+v, %v", name, seen, err)
		}
	}
}

// TestLeasesThatMakeNoSense do not keep the guard from counting: nobody renews by them.
func TestLeasesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	path := write(t, fresh)
	d := flagd.New(flagd.NewFile(path))
	if err := d.Apply(t.Context(), route(500, 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".leases", []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	leases, err := d.Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("leases %+v, %v", leases, err)
	}
	if err := d.Expire(t.Context(), leases[0]); err != nil {
		t.Fatal(err)
	}
	if seen, _ := d.Read(t.Context(), route(0, 0)); seen.Effective != 0 {
		t.Errorf("%+v, want it taken back", seen)
	}
}
