package reconciler

// simMutant is a rule that is broken on purpose.
type simMutant string

const confirmFirst simMutant = "confirm the slot before the queue is committed"

func (m simMutant) break_(rows *memRows) {}
