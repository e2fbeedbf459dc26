from streamlake.cluster.secret import ClusterSecret, Life

ONE, TWO = Life(1, 4), Life(2, 7)


def test_a_proof_is_of_one_cluster_and_for_one_connection() -> None:
    ours, theirs = ClusterSecret(b"a" * 32), ClusterSecret(b"b" * 32)
    proof = ours.proof(ONE, TWO)
    assert ours.is_proof(proof, ONE, TWO)
    assert not theirs.is_proof(proof, ONE, TWO)
    for sender, receiver in ((TWO, ONE), (ONE, Life(2, 8)), (Life(1, 5), TWO), (Life(14, 2), TWO)):
        assert not ours.is_proof(proof, sender, receiver)
    assert not ours.is_proof(b"", ONE, TWO)
