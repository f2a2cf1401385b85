"""One job through a real worker process."""


from tests.worker.service import Service


def test_a_job_goes_all_the_way(service: Service) -> None:
    with service.worker() as worker:
        id = service.submit()
        service.wait(id, "succeeded")
        print(worker.log.read_text())
