# Runs the vcpkg port without vcpkg: this script defines the functions of vcpkg that the port calls. The build is that of
# the tree. Set ROOT to the tree, VERSION to its version, LINKAGE to static or dynamic, and PACKAGES to an empty directory.
cmake_minimum_required(VERSION 3.19)

file(READ "${ROOT}/packaging/vcpkg/nucleus/vcpkg.json" manifest)
string(JSON PORT GET "${manifest}" name)
string(JSON version GET "${manifest}" version)
if(NOT version STREQUAL VERSION)
    message(FATAL_ERROR "vcpkg.json has the version ${version} instead of ${VERSION}")
endif()
set(CURRENT_PORT_DIR "${ROOT}/packaging/vcpkg/nucleus")
set(CURRENT_PACKAGES_DIR "${PACKAGES}")
set(VCPKG_LIBRARY_LINKAGE "${LINKAGE}")
set(TARGET_TRIPLET "test")
set(NUCLEUS_ARCHIVE "not used")
set(CARGO "not/used")

function(vcpkg_extract_source_archive source_path)
    set(${source_path} "${ROOT}" PARENT_SCOPE)
endfunction()

function(vcpkg_execute_required_process)
    cmake_parse_arguments(PARSE_ARGV 0 run "" "WORKING_DIRECTORY;LOGNAME" "COMMAND")
    if(NOT "build" IN_LIST run_COMMAND)
        execute_process(COMMAND ${run_COMMAND} WORKING_DIRECTORY "${run_WORKING_DIRECTORY}" COMMAND_ERROR_IS_FATAL ANY)
    endif()
endfunction()

function(vcpkg_copy_tools)
    cmake_parse_arguments(PARSE_ARGV 0 tools "AUTO_CLEAN" "" "TOOL_NAMES")
    foreach(name IN LISTS tools_TOOL_NAMES)
        file(INSTALL "${PACKAGES}/bin/${name}" DESTINATION "${PACKAGES}/tools/${PORT}" USE_SOURCE_PERMISSIONS)
    endforeach()
    file(REMOVE_RECURSE "${PACKAGES}/bin")
endfunction()

function(vcpkg_install_copyright)
    cmake_parse_arguments(PARSE_ARGV 0 licence "" "" "FILE_LIST")
    configure_file("${licence_FILE_LIST}" "${PACKAGES}/share/${PORT}/copyright" COPYONLY)
endfunction()

function(vcpkg_add_to_path)
endfunction()

function(vcpkg_fixup_pkgconfig)
endfunction()

include("${CURRENT_PORT_DIR}/portfile.cmake")
