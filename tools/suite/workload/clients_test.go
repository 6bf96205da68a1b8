package workload

import (
	"errors"
	"os/exec"
	"testing"
)

// TestClients proves that ordinary clients bring as many records as they are asked
// for there and back, and that one that is missing is named.
func TestClients(t *testing.T) {
	for name, c := range map[string]*ordinaryClient{"franz-go": franzClient(), "kcat": kcatClient()} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("kcat"); err != nil && name == "kcat" {
				t.Skip("there is no kcat")
			}
			_, o := fake(t)
			o.Partitions, o.Records, o.Size, o.Topic = 1, 2500, 100, "clients-"+name
			makeTopic(t, &o)
			r, err := c.run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := Verify(t.Context(), &o, Proof{Records: 2500}); err != nil {
				t.Error(err)
			}
			for _, step := range []string{ClientProduce, ClientConsume} {
				if s := r.Step(step); s == nil || s.Bytes != 250_000 || s.ClientCPU <= 0 {
					t.Errorf("%s: %+v", step, s)
				}
			}
		})
	}
	_, o := fake(t)
	if _, err := javaClient().run(t.Context(), o); !errors.Is(err, ErrNoClient) {
		t.Error("without a KAFKA_HOME:", err)
	}
}
