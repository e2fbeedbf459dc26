from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.iceberg_rest import files, paths, routes
from streamlake.iceberg_rest.warehouses import Warehouses
from streamlake.table.task.control import CatalogCall


def test_a_path_is_understood_as_it_was_meant() -> None:
    path = paths.of_table("lake", ("a b", "c/d", "t%/x"), "credentials")
    assert path == "v1/lake/namespaces/a%20b%1Fc%2Fd/tables/t%25%2Fx/credentials"
    warehouses = Warehouses(NamedCatalogs("lake", {"lake": CatalogConfig("sql", "lake", {})}))
    route, parameters = routes.find("GET", warehouses.target(CatalogCall(0, "GET", path)).path)
    assert route.handle is files.load_credentials
    assert parameters == {"namespace": "a b\x1fc/d", "table": "t%/x"}
